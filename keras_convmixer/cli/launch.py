"""A training on several processes, as the command line begins and ends it."""

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from keras_convmixer.cli.quiet import silent_native_code
from keras_convmixer.errors import UserError, visible

# sysexits.h's EX_TEMPFAIL: try again.
LOST = 75
_LAUNCHED = "KERAS_CONVMIXER_LAUNCHED"
# What the others have to notice that one is gone, before they are killed.
_GRACE_SECONDS = 15
_OWN_OPTIONS = ("run", "processes", "coordinator", "num_processes", "process_id")


def add_arguments(parser):
    group = parser.add_argument_group("several processes or machines, on JAX (docs/several_machines.md)")
    group.add_argument(
        "--backend", choices=("tensorflow", "jax"), help="Keras's backend (default: KERAS_BACKEND, or tensorflow)"
    )
    group.add_argument(
        "--processes", type=int, metavar="N", help="start N processes on this machine, a GPU each where it has any"
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of process 0; auto: JAX finds all three (SLURM, TPU)"
    )
    group.add_argument("--num-processes", type=int, metavar="N", help="how many processes there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0")


def choose_backend(name):
    """Has Keras start with a backend.

    Raises:
        UserError: it has started with another one. ImportError: JAX is not installed.
    """
    _check_installed(name)
    if name and "keras" in sys.modules and sys.modules["keras"].backend.backend() != name:
        raise UserError(f"Keras has started with another backend than {name}: take a new process")
    if name:
        os.environ["KERAS_BACKEND"] = name


def _check_installed(name):
    if name == "jax" and importlib.util.find_spec("jax") is None:
        raise ImportError('--backend jax needs jax: python -m pip install "keras_convmixer[jax]"')


def asked_for(arguments):
    """Whether this is one process of several, by its arguments or its environment."""
    from keras_convmixer.training import hosts

    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    return any(value is not None for value in given) or hosts.in_environment()


@contextlib.contextmanager
def one_of_several(arguments):
    """A context in which this process trains with others, and says one line where one of them is lost."""
    from keras_convmixer.training import hosts

    coordinator = None if arguments.coordinator == "auto" else arguments.coordinator
    launched, traceback = os.environ.get(_LAUNCHED), os.environ.get("CONVMIXER_TRACEBACK")
    words = "" if launched else f"convmixer: {hosts.LOST}\n"  # else whoever launched it says which one it was
    with contextlib.nullcontext() if traceback else contextlib.ExitStack() as stack:
        if stack:
            ending = _Ending(stack.enter_context(silent_native_code()), words)
        try:
            with hosts.joined(coordinator, arguments.num_processes, arguments.process_id) as joined:
                yield joined
        except hosts.LostError:
            if traceback:
                raise
            ending.end()
        except Exception as error:
            if stack:
                # main says what it was. JAX then waits for the others, and aborts when they do not come.
                ending.words, ending.code = "", 1 if isinstance(error, (UserError, OSError, ImportError)) else 70
            raise


class _Ending:
    """Ends this process in order where JAX's native code would abort it with a stack trace.

    Args:
        descriptor: of the file to write to. words: the line to write.
    """

    code = LOST

    def __init__(self, descriptor, words):
        self.descriptor, self.words = descriptor, words
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        # Python's own handlers wait for the main thread, and there is none to wait for after an abort.
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: self.end())
        libc.signal(signal.SIGABRT, self._handler)

    def end(self):
        words, self.words = self.words, ""
        os.write(self.descriptor, words.encode())
        # Not sys.exit: JAX would wait for the one that is lost.
        os._exit(self.code)


def launch(arguments):
    """Starts `--processes` of the same command on this machine and waits for them. Returns the exit code.

    Process 0 writes where this one does, the others each to a file in the run's `logs`. Where one fails all end,
    and one line says which it was.
    """
    count = arguments.processes
    if count < 1:
        raise UserError(f"--processes must be at least 1, not {count}")
    if any(value is not None for value in (arguments.coordinator, arguments.num_processes, arguments.process_id)):
        raise UserError("--processes starts all of them: leave --coordinator, --num-processes and --process-id out")
    if (arguments.backend or os.environ.get("KERAS_BACKEND")) != "jax":
        raise UserError("several processes train on JAX alone: add --backend jax")
    _check_installed("jax")
    gpus = _gpus()
    if 0 < gpus < count:
        raise UserError(f"--processes {count} needs as many GPUs, one each, and there are {gpus}")
    logs = Path(arguments.workdir) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context((_log(logs, i)).open("wb")) for i in range(1, count))]
        running = []
        for i, output in enumerate(outputs):
            words = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={count}", f"--process-id={i}"]
            command = [sys.executable, "-m", "keras_convmixer", "train", *_options(arguments), *words]
            own = {_LAUNCHED: "1"} | ({"JAX_LOCAL_DEVICE_IDS": str(i)} if gpus else {})
            # A session each: a Ctrl-C in the terminal comes to this process alone, which passes it on once.
            running.append(
                subprocess.Popen(
                    command, stdout=output, stderr=output, env=os.environ | own, start_new_session=True
                )
            )
        return _waited_for(running, logs)


def _options(arguments):
    """The options of the command, but for those about processes."""
    words = []
    for name, value in vars(arguments).items():
        if name not in _OWN_OPTIONS and value is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(option)
            else:
                words += [f"{option}={one}" for one in (value if isinstance(value, list) else [value])]
    return words


def _waited_for(running, logs):
    """Waits for processes, passing on what signals there are. Returns the exit code of the whole."""
    told = []

    def pass_on(number, frame):
        told.append(number)
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    heard = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        while all(process.poll() is None for process in running) or _going_well(running):
            time.sleep(0.05)
        deadline = time.monotonic() + _GRACE_SECONDS
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        codes = [process.poll() for process in running]  # None: to be ended here for another's sake
        for process in running:
            process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    failed = [i for i, code in enumerate(codes) if code]
    cause = ([i for i in failed if codes[i] != LOST] or failed or [0])[0]
    if failed and not told and not (cause == 0 and codes[0] > 0):  # process 0 has said it here
        print(f"convmixer: process {cause} {_how(codes[cause], _log(logs, cause))}", file=sys.stderr)
    return codes[cause] if codes[cause] >= 0 else 128 - codes[cause]


def _going_well(running):
    return any(process.poll() is None for process in running) and not any(process.poll() for process in running)


def _how(code, log):
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = f" ({visible(lines[-1].removeprefix('convmixer: '))}; see {log})" if lines else ""
    return f"{how}{said}, and so the others were ended; the same command goes on from the last checkpoint"


def _log(logs, index):
    return logs / f"process-{index}.txt"


def _gpus():
    """How many NVIDIA GPUs a process started from here sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = len([name for name in _names(Path("/dev")) if re.fullmatch(r"nvidia\d+", name)])
    if shown is None or not there:
        return there
    listed = [name.strip() for name in shown.split(",")]
    # As CUDA reads it: what stands after one that there is not is not seen.
    return next((i for i, name in enumerate(listed) if name in ("", "-1")), len(listed))


def _names(folder):
    return os.listdir(folder) if folder.is_dir() else []
