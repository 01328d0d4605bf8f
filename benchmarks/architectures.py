"""ConvMixer beside ResNet, ViT, MLP-Mixer and ResMLP: equal parameters, one recipe, the same images.

    python benchmarks/architectures.py --out runs/architectures                     # CIFAR-10, the recipe cifar10
    python benchmarks/architectures.py --out runs/mine --data photos/ --seed 0 --seed 1 --rate vit=0.001
    python benchmarks/architectures.py --out runs/try --recipe digits --epochs 4    # minutes, to see that it works

The ConvMixer is the recipe's; the peers (peer_models.py) get its depth, twice its patch size, and the width that
gives them its number of parameters to within 5 %. Batches, augmentation, AdamW, schedule and epochs are the
recipe's, and a plain Keras `compile` and `fit` trains all of them; a second row has the same ConvMixer trained by
`keras_convmixer.train`, which computes the same faster.

Each training is a process of its own; one that fails is a row that says why. The same command goes on: what has
finished is not trained again. --out gets architectures.csv, .md and .json, and a folder for each model and seed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from architecture_table import Row, Table
from inference_timing import time_all

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_tensorflow
from keras_convmixer.cli.words import DATA_HELP
from keras_convmixer.errors import UserError, first_line, one_line
from keras_convmixer.experiments.runs import FAILED, Run
from keras_convmixer.machine import processor, usable_cores, versions
from keras_convmixer.recipes import Recipe

PLAIN, FAST = "convmixer", "convmixer_fast"
NAMES = (PLAIN, FAST, "resnet", "vit", "mlp_mixer", "resmlp")
INFERENCE = "inference.json"

# What of a recipe a plain `fit` of any model does not do.
_OF_OUR_TRAINING = [f"model.{key}" for key in ("weights", "dropout", "stochastic_depth", "depthwise_covariance")]
_OF_OUR_TRAINING += ["model.whitened_patches", "optimizer.name", "optimizer.backbone_multiplier"]
_OF_OUR_TRAINING += ["optimizer.layer_decay", "training.precision", "training.ema", "training.batch_norm"]
_OF_OUR_TRAINING += ["training.gradient_accumulation", "training.rematerialize", "training.early_stopping"]
_OF_OUR_TRAINING += ["training.freeze_backbone", "training.cached_crops", "training.progressive_resizing"]


def main(argv=None):
    """Runs the command line `argv`. Returns the exit code: 1 if something failed."""
    arguments = _parser().parse_args(argv)
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        table = compare(
            _recipe(arguments),
            arguments.out,
            names=arguments.only or NAMES,
            seeds=arguments.seed or [0],
            rates=dict(map(_rate, arguments.rate)),
            threads=arguments.threads,
            rounds=arguments.rounds,
        )
    except (UserError, OSError, ImportError) as error:
        print(f"architectures: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("architectures: interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(table.as_json() if arguments.json else table.as_table())
    return 1 if any(row.failed for row in table.rows) else 0


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the trainings and the tables")
    parser.add_argument("--recipe", default="cifar10", help="a name or a YAML file (default: cifar10)")
    parser.add_argument("--data", help=f"{DATA_HELP} (default: the recipe's)")
    parser.add_argument("--dim", type=int, help="of the ConvMixer (default: the recipe's)")
    parser.add_argument("--depth", type=int, help="of the ConvMixer (default: the recipe's)")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe's key")
    parser.add_argument("--seed", type=int, action="append", help="repeatable (default: 0)")
    parser.add_argument(
        "--rate",
        action="append",
        default=[],
        metavar="MODEL=RATE",
        help="another peak learning rate for one of them, which the table shows; repeatable",
    )
    parser.add_argument("--only", action="append", choices=NAMES, help="repeatable (default: all)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of inference (default: the cores)")
    parser.add_argument("--rounds", type=int, default=10, help="in which inference is timed (default: 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _recipe(arguments):
    given = {"model.dim": arguments.dim, "model.depth": arguments.depth, "training.epochs": arguments.epochs}
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    if arguments.data:
        changes.append(f"data.source={yaml.safe_dump(files.absolute(arguments.data))}")
    return Recipe.load(arguments.recipe, [*changes, *arguments.set])


def _rate(text):
    name, _, rate = text.partition("=")
    with contextlib.suppress(ValueError):
        if name in NAMES:
            return name, float(rate)
    raise UserError(f"--rate {text}: expected MODEL=RATE, such as vit=0.001, with a model of {', '.join(NAMES)}")


def compare(recipe, out, *, names=NAMES, seeds=(0,), rates=None, threads=1, rounds=10):
    """Trains the architectures, times them, and writes the tables; called again it goes on.

    Args:
        recipe: the `Recipe` of all. out: the folder for everything. names: of `NAMES`. seeds: of each.
        rates: name → peak learning rate, where it is not the recipe's.
        threads: of inference. rounds: in which inference is timed.

    Returns:
        The `Table`.

    Raises:
        UserError: the recipe asks for what plain Keras does not do, no peer is as large as the ConvMixer, the
            folder has trainings of another recipe or is in use, or every training failed. OSError: no such data.
    """
    _check(recipe, seeds, threads, rounds)
    recipes = {
        out / name / f"seed{seed}": _changed(recipe, (rates or {}).get(name), seed)
        for name in NAMES
        for seed in seeds
        if name in names
    }
    for folder, own in recipes.items():
        if _differences(folder, own) and not (folder / FAILED).exists():
            known = "; ".join(_differences(folder, own)[:4])
            raise UserError(f"{folder} is of another recipe ({known}); choose another --out")
    with quiet_tensorflow():
        import keras  # noqa: F401
    parameters = _parameters(recipe, [name for name in NAMES if name in names])
    for name, count in parameters.items():
        print(f"{name:<16}{count:>12,} parameters", file=sys.stderr)
    try:
        with files.locked(out / ".lock", wait=False):
            return _compare(recipe, out, recipes, parameters, threads, rounds)
    except TimeoutError:
        raise UserError(f"{out} is in use: another comparison trains in it") from None


def _compare(recipe, out, recipes, parameters, threads, rounds):
    for number, (folder, own) in enumerate(recipes.items(), 1):
        if not (folder / "metrics.json").exists():
            print(f"[{number}/{len(recipes)}] {folder.parent.name}, seed {own.seed}", file=sys.stderr, flush=True)
            _in_own_process(folder, own)
            _table(out, recipes, parameters, recipe).save(out)
    table = _table(out, recipes, parameters, recipe)
    finished = [row.finished[0].path for row in table.rows if row.finished]
    if not finished:
        raise UserError(f"every training failed; the first: {table.rows[0].failed}")
    print("timing inference", file=sys.stderr, flush=True)
    (out / INFERENCE).unlink(missing_ok=True)
    _run(time_all, {path.parent.name: path for path in finished}, (PLAIN, FAST), out / INFERENCE, threads, rounds)
    table = _table(out, recipes, parameters, recipe)
    table.save(out)
    return table


def _check(recipe, seeds, threads, rounds):
    flat, plain = recipe.flat(), Recipe().flat()
    for key in _OF_OUR_TRAINING:
        if flat[key] != plain[key]:
            without = yaml.safe_dump(plain[key], default_flow_style=True).partition("\n")[0]
            raise UserError(
                f"{key} {flat[key]!r} is not for this comparison, whose models all train as plain Keras does; add "
                f"--set {key}={without}"
            )
    if min(threads, rounds) < 1:
        raise UserError("--threads and --rounds must be at least 1")
    if len(set(seeds)) < len(seeds):
        raise UserError("--seed: the same seed is given twice")


def _changed(recipe, rate, seed):
    optimizer = {} if rate is None else {"learning_rate": rate}
    values = yaml.safe_load(recipe.to_yaml()) | {"seed": seed}
    return Recipe.from_dict(values | {"optimizer": values["optimizer"] | optimizer})


def _differences(folder, recipe):
    """What a recipe differs in from that of a folder's training, in lines."""
    path = folder / "recipe.yaml"
    return recipe.differences(Recipe.load(path)) if path.exists() else []


def _parameters(recipe, names):
    """Name → number of trainable parameters."""
    from peer_models import trainable

    models = _Models(recipe)
    own = {name: models.convmixer if name in (PLAIN, FAST) else models.peer(name) for name in names}
    return {name: trainable(model) for name, model in own.items()}


class _Models:
    """The models of a recipe, with random weights. It reads what the recipe's data is."""

    def __init__(self, recipe):
        from keras_convmixer.training.build import build
        from keras_convmixer.training.sources import RecipeData

        self.source = RecipeData(recipe)
        bundle = build(recipe.model, self.source.classes, self.source.sample)
        self.convmixer, self.preprocessing = bundle.model, bundle.preprocessing

    def peer(self, name):
        from peer_models import Sizes, matched, trainable

        from keras_convmixer.parts import architecture

        own, images = architecture(self.convmixer), self.preprocessing
        # As the paper's: its peers have patches of 16 pixels where its own have 7.
        patch_size = 2 * own["patch_size"]
        if patch_size > min(images.input_size):
            raise UserError(f"patches of {patch_size} pixels, twice the ConvMixer's, are larger than the images")
        classes = len(self.source.classes)
        sizes = Sizes(own["depth"], patch_size, images.input_size, classes, images.mean, images.std)
        return matched(name, sizes, trainable(self.convmixer))


def _in_own_process(folder, recipe):
    if _differences(folder, recipe):  # one that failed, of which nothing may be gone on with
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    files.write_text(folder / "recipe.yaml", recipe.to_yaml())
    code = _run(_train, folder)
    if code and not (folder / FAILED).exists():
        why = f"stopped by signal {-code}" if code < 0 else f"exit code {code}"
        files.write_text(folder / FAILED, f"{why}\n")
    if code:
        print(f"  failed: {(folder / FAILED).read_text(encoding='utf-8').strip()}", file=sys.stderr, flush=True)


def _run(function, *arguments):
    """The exit code of a process that calls a function."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, daemon=True)
    process.start()
    process.join()
    if process.exitcode == 130:
        raise KeyboardInterrupt
    return process.exitcode


def _train(folder):
    """A training's process: its folder becomes a run's, or says why not."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_tensorflow():
            import keras

            import keras_convmixer
        recipe = Recipe.load(folder / "recipe.yaml")
        if folder.parent.name == FAST:
            has_gpu = bool(keras.distribution.list_devices("gpu"))
            # A single device, as a plain fit takes.
            keras_convmixer.train(recipe, folder, devices=("GPU:0",) if has_gpu else None)
        else:
            _fit(recipe, folder)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # An architecture may fail in any way; the others are compared all the same.
        text = one_line(error) if isinstance(error, (UserError, OSError)) else first_line(error)
        files.write_text(folder / FAILED, f"{text or type(error).__name__}\n")
        sys.exit(1)


def _fit(recipe, folder):
    """Trains as any Keras user would: compile, fit."""
    import keras
    import tensorflow as tf

    from keras_convmixer.data.unreadable import stream_in_use
    from keras_convmixer.parts import parameter_count
    from keras_convmixer.training.compiled import learning_rate
    from keras_convmixer.training.interruption import Interruption
    from keras_convmixer.training.optimizer import AdamW
    from keras_convmixer.training.progress_line import watched
    from keras_convmixer.training.validation import Validation

    keras.utils.set_random_seed(recipe.seed)
    models, name = _Models(recipe), folder.parent.name
    source, model = models.source, models.convmixer if name == PLAIN else models.peer(name)
    own, epochs, rate = recipe.optimizer, recipe.training.epochs, recipe.optimizer.learning_rate
    optimizer = AdamW(
        learning_rate(own, epochs, source.steps),
        weight_decay=own.weight_decay,
        beta_1=own.beta_1,
        beta_2=own.beta_2,
        epsilon=own.epsilon,
        decay_1d=own.decay == "all",
        global_clipnorm=own.clip_norm,
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])
    meter = source.meter(models.preprocessing, replicas=1)
    # In the place of checkpoints, of which there are none here.
    alone = SimpleNamespace(source=source, average=None, interruption=Interruption())
    validation = Validation(meter, source.classes, tf.distribute.get_strategy(), alone)

    def refuse_what_is_not_finite(batch, logs):
        if not np.isfinite(logs["loss"]):
            raise UserError(f"the loss is not finite any more; try --rate {name}=RATE, with less than {rate:g}")

    first = [keras.callbacks.LambdaCallback(on_train_batch_end=refuse_what_is_not_finite), validation]
    with stream_in_use(), watched(str(folder), source, [1] * epochs, verbose=1) as line:
        model.fit(
            source.batches(models.preprocessing, first_epoch=0),
            epochs=epochs,
            steps_per_epoch=source.steps,
            shuffle=False,  # the stream is in its own random order already
            callbacks=[*first, keras.callbacks.CSVLogger(folder / "history.csv"), *line],
            verbose=0,  # `watched` says more
        )
    evaluation = meter.measure(model, source.classes)
    with files.replacing(folder / "model.keras") as temporary:
        model.save(temporary)
    metrics = evaluation.summary() | {"epochs": epochs, "parameters": parameter_count(model)}
    metrics |= {"precision": "float32", "processor": processor(), "versions": versions("keras", "tensorflow")}
    files.write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def _table(out, recipes, parameters, recipe):
    path = out / INFERENCE
    rates = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = []
    for name, count in parameters.items():
        folders = [folder for folder in recipes if folder.parent.name == name and (folder / "recipe.yaml").exists()]
        by = "keras_convmixer.train" if name == FAST else "Keras fit"
        shown = PLAIN if name == FAST else name
        rows.append(Row(shown, by, count, tuple(map(Run.read, folders)), rates.get(name, {})))
    made_with = {"processor": processor(), "cores": usable_cores(), **versions("tensorflow", "keras")}
    made_with |= {"data": recipe.data.source, "epochs": recipe.training.epochs}
    return Table(tuple(rows), made_with | {"batch_size": recipe.training.batch_size})


if __name__ == "__main__":
    sys.exit(main())
