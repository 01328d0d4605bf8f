"""The `convmixer` command: its arguments, and its errors as one line. What a subcommand does is in `commands`."""

import argparse
import os
import sys
import warnings

from keras_convmixer import __version__, commands

_EPILOG = """\
examples:
  convmixer train --recipe digits --workdir runs/digits
  convmixer train --recipe cifar10 --data photos.tar.gz --workdir runs/mine --set training.epochs=5
  convmixer evaluate runs/mine
  convmixer data photos/ --recipe finetune --out look
  convmixer predict runs/mine photo.jpg more/*.png --top 3
  convmixer export runs/mine --format tflite --quantize int8 --out exported

Exit codes: 0 done, 1 something could not be done (one line on stderr says what), 2 wrong usage, 130 interrupted.
CONVMIXER_TRACEBACK=1 in the environment shows where an error came from.
"""

_DATA_HELP = (
    "a TFDS name (cifar10, imagenet2012, ...), a folder split/class/image or class/image, an archive (.tar, "
    ".tar.gz, .zip) of either, or digits"
)


def main(argv=None):
    """Runs the command line `argv`, by default the process's own. Returns the exit code."""
    arguments = _parser().parse_args(argv)
    warnings.formatwarning = lambda message, *_, **__: f"convmixer: {message}\n"
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("convmixer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("CONVMIXER_TRACEBACK") or not _is_users(error):
            raise
        print(f"convmixer: {_one_line(error)}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(
        "convmixer",
        description="ConvMixer for Keras: train, evaluate, predict with and export one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras_convmixer {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, summary, example):
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  convmixer {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "train",
        commands.train,
        "train a model, or go on with an interrupted training",
        "--recipe digits --workdir runs/d",
    )
    sub.add_argument("--recipe", default="digits", help="digits, cifar10, imagenet, finetune or a YAML file")
    sub.add_argument("--data", help=f"{_DATA_HELP} (default: the recipe's)")
    sub.add_argument("--workdir", required=True, help="folder of the run; the same command goes on in it")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    sub.add_argument("--devices", metavar="NAMES", help="such as GPU:0,GPU:1 (default: every GPU)")

    sub = command("evaluate", commands.evaluate, "measure a model on a data set", "runs/d --split test")
    sub.add_argument("model", help="a run or model folder, or the name of a published model")
    sub.add_argument("--data", help=f"{_DATA_HELP} (default: what the model was trained on)")
    sub.add_argument("--split", help="train, validation or test (default: the held-out one)")
    sub.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    sub.add_argument("--allow-corrupt", action="store_true", help="even if over 1 %% of the images are unreadable")
    sub.add_argument("--out", help="folder for the figures (default: evaluation/SPLIT in the model's folder)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "data",
        commands.data,
        "show what is in a data set and what a recipe makes of it",
        "photos/ --recipe finetune --out look",
    )
    sub.add_argument("source", metavar="PATH", help=_DATA_HELP)
    sub.add_argument("--recipe", help="whose training input to show (default: imagenet; of digits, digits)")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    sub.add_argument(
        "--out", metavar="DIR", help="folder for contact_sheet.png, of augmented images, and data.json"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("predict", commands.predict, "classify images", "runs/d photo.jpg more/*.png --top 3")
    sub.add_argument("model", help="a run or model folder, or the name of a published model")
    sub.add_argument("images", nargs="+", help="image files, folders or patterns")
    sub.add_argument("--top", type=int, default=5, help="classes to name for each image (default: 5)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "export",
        commands.export,
        "write a SavedModel, TFLite, ONNX or OpenVINO file, and compare it with the model",
        "runs/d --format tflite --quantize int8 --out exported",
    )
    sub.add_argument("model", help="a run or model folder, or the name of a published model")
    sub.add_argument(
        "--format",
        choices=("saved_model", "tflite", "onnx", "openvino"),
        default="saved_model",
        help="onnx and openvino need the extra of that name (default: saved_model)",
    )
    sub.add_argument(
        "--quantize",
        choices=("none", "float16", "dynamic", "int8"),
        default="none",
        help="TFLite's numbers: dynamic has int8 weights, int8 is integers throughout (default: none, float32)",
    )
    sub.add_argument("--out", required=True, help="folder to write to")
    sub.add_argument(
        "--data", help=f"images to compare and calibrate with: {_DATA_HELP} (default: the model's own)"
    )
    sub.add_argument("--no-split", action="store_true", help="keep depthwise kernels whole in a TFLite file")
    sub.add_argument("--features", action="store_true", help="also give the last block's feature map")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "benchmark",
        commands.benchmark,
        "measure every form of a model: images/s, size, memory, agreement",
        "convmixer_768_32 --peers --out benchmark",
    )
    sub.add_argument(
        "models",
        nargs="*",
        default="convmixer_256_8_ks5_p2",
        metavar="MODEL",
        help="a run or model folder, or the name of a variant with random weights (default: %(default)s)",
    )
    sub.add_argument(
        "--peers",
        action="store_true",
        help="also the stock TFLite conversion and, where installed, ONNX Runtime, OpenVINO and timm",
    )
    sub.add_argument("--data", help=f"images: {_DATA_HELP} (default: the model's own, or noise)")
    sub.add_argument("--images", type=int, default=64, help="images to compare the forms on (default: 64)")
    sub.add_argument("--rounds", type=int, default=10, help="how often each is timed (default: 10)")
    sub.add_argument("--threads", type=int, help="for each runtime (default: one for each processor)")
    sub.add_argument("--out", help="folder for benchmark.csv, benchmark.json and benchmark.png")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "convert",
        commands.convert,
        "turn a PyTorch checkpoint into a Keras model, or a model folder into timm's layout",
        "convmixer_768_32_ks7_p7_relu.pth.tar --out model.keras",
    )
    sub.add_argument("source", help="a .pth, .pth.tar or .safetensors file or address; or a model folder")
    sub.add_argument(
        "--out",
        required=True,
        help="a .keras file, a folder for every other command, or (from a folder) a .safetensors file for timm",
    )
    sub.add_argument("--activation", help="gelu, relu, ...: checkpoints do not show it (default: the variant's)")
    sub.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of its images (default: the variant's)",
    )
    for name in ("mean", "std"):
        sub.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"{name} of its images' channels, scaled to 0-1 (default: the variant's)",
        )
    sub.add_argument("--ema", action="store_true", help="take the checkpoint's averaged weights")
    sub.add_argument("--classes", help="file of class names, one a line, for a folder (default: ImageNet's)")

    sub = command("models", commands.models, "list the named models", "--json")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _is_users(error):
    """Whether an error tells the user something, and is not a fault of this package."""
    return isinstance(error, (ValueError, OSError, ImportError, MemoryError)) or _is_tensorflows(error)


def _is_tensorflows(error):
    return type(error).__module__.startswith("tensorflow.")


def _one_line(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}{': ' if error.filename else ''}{error.strerror}"
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    line = " ".join(text.split())
    if _is_tensorflows(error):
        # Its messages go on with where in the graph they come from.
        line = f"TensorFlow: {type(error).__name__}: {line[:300]}"
    return line
