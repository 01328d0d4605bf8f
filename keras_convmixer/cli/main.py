"""The `convmixer` command: its subcommands, each a module of this folder, and its errors as one line."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import warnings

from keras_convmixer import __version__
from keras_convmixer.cli import (
    average,
    benchmark,
    convert,
    data,
    demo,
    evaluate,
    export,
    models,
    predict,
    recipe,
    report,
    runs,
    sweep,
    train,
    visualize,
)
from keras_convmixer.errors import UserError, one_line
from keras_convmixer.machine import cpu_flags

SUBCOMMANDS = (
    *(train, evaluate, data, recipe, predict, visualize, export, demo, benchmark),
    *(convert, average, models, sweep, runs, report),
)
# sysexits.h's EX_SOFTWARE
FAULT = 70

_EPILOG = """\
examples:
  convmixer train --recipe digits --workdir runs/digits
  convmixer train --recipe finetune --data photos/ --workdir runs/mine
  convmixer evaluate runs/mine
  convmixer data photos/ --recipe finetune --out look
  convmixer recipe keys training
  convmixer predict runs/mine photo.jpg more/*.png --top 3
  convmixer visualize runs/mine photo.jpg --out figures
  convmixer export runs/mine --format tflite --quantize int8 --out exported

Exit codes: 0 done, 1 something could not be done (one line on stderr says what), 2 wrong usage, 70 a fault of this
program, 75 another process of the training was lost, 129 hung up, 130 interrupted, 143 terminated.
CONVMIXER_TRACEBACK=1 in the environment shows where an error came from, and what native code says.
"""


def main(argv=None):
    """Runs the command line `argv`, by default the process's own. Returns the exit code.

    While it runs, warnings are lines on stderr, SIGTERM and SIGHUP unwind, and some subcommands hold back what
    native code writes to file descriptor 2 (see `cli.quiet`). All are put back. If stdout is a pipe that was
    closed, it becomes /dev/null. One thing stays: see `_with_onednn`.
    """
    _with_onednn()
    arguments = parser().parse_args(argv)
    try:
        with warnings.catch_warnings(), _terminated_in_order():
            warnings.showwarning = lambda message, *_, **__: _say(message)
            return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("convmixer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("CONVMIXER_TRACEBACK"):
            raise
        return _explain(error)


def _with_onednn():
    """Has TensorFlow, if it is not loaded yet, take oneDNN on processors with AVX2.

    By itself it does so only from AVX512-VNNI on. With AVX2 alone oneDNN trains 1.4 times as fast
    (docs/training_speed.md). TF_ENABLE_ONEDNN_OPTS in the environment goes before this.
    """
    if "avx2" in cpu_flags() and "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextlib.contextmanager
def _terminated_in_order():
    """Has SIGTERM and SIGHUP unwind the program, as Ctrl-C does, so that half-written files are removed."""
    ours = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in ours if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def parser():
    """The command's `argparse.ArgumentParser`, with every subcommand's below it. Nothing heavy is imported."""
    parser = argparse.ArgumentParser(
        "convmixer",
        description="ConvMixer for Keras: train, evaluate, predict with and export one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras_convmixer {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for subcommand in SUBCOMMANDS:
        name = subcommand.__name__.rpartition(".")[2]
        sub = subparsers.add_parser(
            name,
            help=subcommand.SUMMARY,
            description=subcommand.SUMMARY[0].upper() + subcommand.SUMMARY[1:] + ".",
            epilog=f"example:\n  convmixer {name} {subcommand.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subcommand.add_arguments(sub)
        sub.set_defaults(run=subcommand.run)
    return parser


def _explain(error):
    """Says in one line what went wrong. Returns the exit code: whose fault it is, the user's or the program's."""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    if out_of_memory or isinstance(error, (UserError, OSError, ImportError)):
        _say(error)
        return 1
    print(
        f"convmixer: a fault of this program, please report it{_where()}: {type(error).__name__}: "
        f"{one_line(error)[:300]} (CONVMIXER_TRACEBACK=1 in the environment shows where)",
        file=sys.stderr,
    )
    return FAULT


def _say(message):
    print(f"convmixer: {one_line(message)}", file=sys.stderr)


def _where():
    """The repository's address, as the installed package names it."""
    from importlib import metadata  # which takes as long as all else that --help needs

    with contextlib.suppress(metadata.PackageNotFoundError):
        for entry in metadata.metadata("keras-convmixer").get_all("Project-URL", ()):
            name, _, address = entry.partition(", ")
            if name == "Homepage":
                return f" at {address}/issues"
    return ""
