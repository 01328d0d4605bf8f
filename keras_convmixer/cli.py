"""The `convmixer` command. Each subcommand imports what it needs when it runs, so that --help is instant."""

import argparse
import contextlib
import json
import os
import sys
import warnings
from pathlib import Path

from keras_convmixer import __version__

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


def _train(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.training.recipe import Recipe
        from keras_convmixer.training.train import train
    overrides = list(arguments.set)
    if arguments.data:
        # The run's folder must find its data from any working directory.
        path = Path(arguments.data).expanduser()
        overrides.append(f"data.source={json.dumps(str(path.resolve()) if path.exists() else arguments.data)}")
    recipe = Recipe.load(arguments.recipe, overrides)
    devices = arguments.devices.split(",") if arguments.devices else None
    try:
        # A bar that is rewritten in place is for a terminal; a log gets a line an epoch.
        bundle = train(recipe, arguments.workdir, devices=devices, verbose=1 if sys.stdout.isatty() else 2)
    except KeyboardInterrupt:
        print(f"convmixer: interrupted; the same command goes on in {arguments.workdir}", file=sys.stderr)
        return 130
    metrics = json.loads((bundle.path / "metrics.json").read_text(encoding="utf-8"))
    print(
        f"{bundle.path}: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} "
        f"on {metrics['images']} images ({metrics['split']})"
    )
    return 0


def _evaluate(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.bundle import load
        from keras_convmixer.training.evaluate import evaluate
    bundle = load(arguments.model)
    evaluation = evaluate(
        bundle,
        arguments.data,
        split=arguments.split,
        batch_size=arguments.batch_size,
        allow_corrupt=arguments.allow_corrupt,
        verbose=1 if sys.stderr.isatty() and not arguments.json else 0,
    )
    if arguments.out or bundle.path:
        out = Path(arguments.out or bundle.path / "evaluation" / evaluation.split)
        evaluation.save(out)
        print(f"wrote {out}/metrics.json, confusion_matrix.csv, confusion_matrix.png", file=sys.stderr)
    for name, reason in evaluation.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(json.dumps(evaluation.summary(), indent=2) if arguments.json else evaluation.table())
    return 0


def _predict(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.deployment import predict
    predictions = predict.predict(arguments.model, arguments.images, top=arguments.top)
    print(predict.as_json(predictions) if arguments.json else predict.as_table(predictions))
    return 1 if any(prediction.error for prediction in predictions) else 0


def _export(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.deployment import export
    report = export.export(
        arguments.model,
        arguments.out,
        format=arguments.format,
        quantize=arguments.quantize,
        data=arguments.data,
        features=arguments.features,
        split=not arguments.no_split,
    )
    print(report.as_json() if arguments.json else report.as_table())
    return 0


def _benchmark(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.deployment.benchmark import benchmark
    result = benchmark(
        arguments.models,
        peers=arguments.peers,
        data=arguments.data,
        images=arguments.images,
        rounds=arguments.rounds,
        threads=arguments.threads,
    )
    if arguments.out:
        result.save(arguments.out)
        print(f"wrote {arguments.out}/benchmark.csv, benchmark.json, benchmark.png", file=sys.stderr)
    print(result.as_json() if arguments.json else result.as_table())
    return 0


def _data(arguments):
    with _quiet_tensorflow():
        from keras_convmixer import files
        from keras_convmixer.data import datasets, survey
        from keras_convmixer.training.build import preprocessing
        from keras_convmixer.training.recipe import Recipe
    recipe = Recipe.load(
        arguments.recipe or ("digits" if arguments.source == "digits" else "imagenet"), arguments.set
    )
    dataset = datasets.open_dataset(
        arguments.source,
        validation_fraction=recipe.data.validation_fraction,
        seed=recipe.seed,
        allow_corrupt=True,  # what cannot be read is among what is asked for
    )
    size = preprocessing(recipe.model)
    found = survey.survey(dataset, size, recipe.augmentation)
    if arguments.out:
        out = Path(arguments.out)
        files.write_text(out / "data.json", found.as_json() + "\n")
        sheet = out / "contact_sheet.png"
        survey.write_contact_sheet(sheet, dataset.training(), size, recipe.augmentation, recipe.seed)
        print(f"wrote {out}/data.json, contact_sheet.png", file=sys.stderr)
    print(found.as_json() if arguments.json else found.as_table())
    return 0


def _convert(arguments):
    with _quiet_tensorflow():
        from keras_convmixer import bundle, files, variants
        from keras_convmixer.weights.convert import save_torch
    out = Path(arguments.out)
    given = {name: getattr(arguments, name) for name in ("activation", "mean", "std") if getattr(arguments, name)}
    if arguments.input_size:
        given["image_size"] = tuple(arguments.input_size)
    if out.suffix == ".safetensors":
        save_torch(bundle.load(arguments.source).model, out)
    elif out.suffix == ".keras":
        model = variants.convert_checkpoint(arguments.source, ema=arguments.ema, **given)
        with files.replacing(out) as temporary:
            model.save(temporary)
    elif out.suffix:
        raise ValueError(f"{out}: give --out a .keras file, a .safetensors file or a folder")
    else:
        given |= {"classifier_activation": None}
        model = variants.convert_checkpoint(arguments.source, ema=arguments.ema, **given)
        bundle.save(bundle.around(model, arguments.classes), out)
    print(f"wrote {out}")
    return 0


def _models(arguments):
    from keras_convmixer.variants import VARIANTS

    if arguments.json:
        rows = {
            name: {
                "parameters": v.parameters,
                "input_size": list(v.preprocessing.input_size),
                "activation": v.activation,
                "dataset": v.dataset,
                "top1": v.top1,
                "top5": v.top5,
            }
            for name, v in VARIANTS.items()
        }
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'name':<27}{'parameters':>11}  {'input':<8} {'activation':<11}{'top-1':>7}{'top-5':>8}  measured on")
    for name, v in VARIANTS.items():
        height, width = v.preprocessing.input_size
        scores = "".join(f"{'' if score is None else format(score, '.2f'):>8}" for score in (v.top1, v.top5))
        print(f"{name:<27}{v.parameters:>11,}  {height}x{width:<5}{v.activation:<10}{scores}  {v.dataset}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        "convmixer",
        description="ConvMixer for Keras: train, evaluate, predict with and export one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras_convmixer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, summary, example):
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  convmixer {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "train", _train, "train a model, or go on with an interrupted training", "--recipe digits --workdir runs/d"
    )
    sub.add_argument("--recipe", default="digits", help="digits, cifar10, imagenet, finetune or a YAML file")
    sub.add_argument("--data", help=f"{_DATA_HELP} (default: the recipe's)")
    sub.add_argument("--workdir", required=True, help="folder of the run; the same command goes on in it")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    sub.add_argument("--devices", metavar="NAMES", help="such as GPU:0,GPU:1 (default: every GPU)")

    sub = command("evaluate", _evaluate, "measure a model on a data set", "runs/d --split test")
    sub.add_argument("model", help="a run or model folder, or the name of a published model")
    sub.add_argument("--data", help=f"{_DATA_HELP} (default: what the model was trained on)")
    sub.add_argument("--split", help="train, validation or test (default: the held-out one)")
    sub.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    sub.add_argument("--allow-corrupt", action="store_true", help="even if over 1 %% of the images are unreadable")
    sub.add_argument("--out", help="folder for the figures (default: evaluation/SPLIT in the model's folder)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "data",
        _data,
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

    sub = command("predict", _predict, "classify images", "runs/d photo.jpg more/*.png --top 3")
    sub.add_argument("model", help="a run or model folder, or the name of a published model")
    sub.add_argument("images", nargs="+", help="image files, folders or patterns")
    sub.add_argument("--top", type=int, default=5, help="classes to name for each image (default: 5)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "export",
        _export,
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
        _benchmark,
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
        _convert,
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

    sub = command("models", _models, "list the named models", "--json")
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


@contextlib.contextmanager
def _quiet_tensorflow():
    """Keeps what TensorFlow says of itself while it starts off stderr, unless the start fails."""
    from keras_convmixer.deployment.quiet import quiet_stderr

    # What TensorFlow logs as an error and stops for it also raises; the rest is about the machine.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        # The first look for a GPU has its own complaints where there is none.
        tf.config.list_physical_devices("GPU")
        yield
