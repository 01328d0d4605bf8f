"""What each subcommand of `convmixer` does with its parsed arguments. Each returns the exit code.

Each imports what it needs when it runs, so that --help is instant.
"""

import contextlib
import json
import os
import sys
from pathlib import Path


def train(arguments):
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


def evaluate(arguments):
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


def predict(arguments):
    with _quiet_tensorflow():
        from keras_convmixer.deployment import predict
    predictions = predict.predict(arguments.model, arguments.images, top=arguments.top)
    print(predict.as_json(predictions) if arguments.json else predict.as_table(predictions))
    return 1 if any(prediction.error for prediction in predictions) else 0


def export(arguments):
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


def benchmark(arguments):
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


def data(arguments):
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


def convert(arguments):
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


def models(arguments):
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
