"""Training: a recipe and a folder in, a model folder out. The same call resumes."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_convmixer import bundles, files
from keras_convmixer.data.unreadable import stream_in_use
from keras_convmixer.errors import UserError
from keras_convmixer.machine import processor, versions
from keras_convmixer.parts import architecture
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint, distribute, dtype_policy, memory
from keras_convmixer.training.allocator import keep_freed_memory
from keras_convmixer.training.build import build
from keras_convmixer.training.compiled import compiled
from keras_convmixer.training.ema import MovingAverage
from keras_convmixer.training.frozen_features import FrozenFeatures
from keras_convmixer.training.sources import OwnData, RecipeData
from keras_convmixer.training.validation import Validation


@stream_in_use()
def train(
    recipe: Recipe | str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    data: tuple | None = None,
    classes: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> bundles.Bundle:
    """Trains a ConvMixer, or goes on with a training that was interrupted.

    Args:
        recipe: a `Recipe`, or what `Recipe.load` takes: a name or a YAML file.
        workdir: the run's folder. After every epoch it holds `checkpoints/`, `history.csv` and TensorBoard's
            `logs/`; at the end it is a model folder (see `bundles`), whose `metrics.json` was measured on the
            held-out split.
        data: batches of your own instead of the recipe's data: (training, held out), two `tf.data.Dataset`s; see
            `sources.OwnData`. They come with classes: the class names, in the order of the labels.
        devices: names of the devices to share each batch out to, such as ("GPU:0", "GPU:1"). Default: every
            GPU there is. For more than one CPU, TensorFlow must not have started yet.
        callbacks: Keras's, called after this package's own: an epoch's figures have `val_loss` and `val_accuracy`
            then. `self.model` is the clone that trains (see `training_model`).
        verbose: as Keras's `fit`: 0 silent, 1 progress bar, 2 one line an epoch, "auto".

    Returns:
        The trained model's `Bundle`.

    Raises:
        UserError (a ValueError): the data or the recipe is not fit for training, `workdir` is another recipe's run,
            or the loss is no longer finite. OSError: a file cannot be read or written, or the images are no longer
            there.
    """
    keep_freed_memory()
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    workdir = Path(workdir)
    _refuse_another_recipes(workdir, recipe)
    with distribute.on(devices) as strategy:
        hardware = dtype_policy.hardware(devices)
        source = RecipeData(recipe) if data is None else OwnData(recipe, data, classes)
        return _train(recipe, workdir, source, strategy, hardware, callbacks, verbose)


def _train(recipe, workdir, source, strategy, hardware, callbacks, verbose):
    training, replicas, on_cpu = recipe.training, strategy.num_replicas_in_sync, hardware.kind == "CPU"
    precision = dtype_policy.said(training.precision, hardware)
    frozen = on_cpu if training.freeze_backbone == "auto" else training.freeze_backbone
    if training.batch_size % replicas:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out equally over {replicas} devices"
        )
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        bundle = build(recipe.model, source.classes, source.sample)
        plain = bundle.model
        for layer in bundle.model.layers:
            layer.trainable = layer.name == "head" or not frozen
        if frozen and training.cached_crops and replicas == 1 and isinstance(source, RecipeData):
            source = FrozenFeatures(source, bundle)
            plain = source.head
        elif on_cpu and not frozen:  # a GPU's memory is its own, and its libraries' needs differ
            _say_what_it_takes(recipe, bundle, precision)
        trained = compiled(recipe, plain, source.steps, precision)
        average = MovingAverage(trained, training.ema) if training.ema else None
    # Only now is the folder this recipe's: what failed before this line leaves nothing in the way of another try.
    files.write_text(workdir / "recipe.yaml", recipe.to_yaml())
    checkpoints = checkpoint.Checkpoints(workdir, average, training.early_stopping)
    done = checkpoints.resume(trained)
    if not done:
        source.note_images(workdir)
    meter = source.meter(bundle.preprocessing, replicas)
    if done < training.epochs and not checkpoints.stopped_early:
        if done:
            print(f"{workdir}: going on after epoch {done} of {training.epochs}", file=sys.stderr)
        trained.fit(
            source.batches(bundle.preprocessing, first_epoch=done),
            initial_epoch=done,
            epochs=training.epochs,
            steps_per_epoch=source.steps,
            shuffle=False,  # the stream is in its own random order already
            callbacks=[
                *([average] if average else []),
                Validation(meter, bundle.classes, strategy, average, source),
                checkpoints,
                keras.callbacks.TensorBoard(workdir / "logs"),
                *callbacks,
            ],
            verbose=verbose,
        )
    if training.early_stopping:
        checkpoint.restore(checkpoints.best, trained, average.variables if average else None)
    if average:
        average.apply()
    plain.set_weights(trained.get_weights())
    evaluation = meter.measure(plain, bundle.classes)
    metrics = {"epochs": len(checkpoints.history), "precision": precision, "frozen": frozen}
    metrics |= {"parameters": bundle.model.count_params()} | _made_with() | evaluation.summary()
    bundle = dataclasses.replace(bundle, path=workdir)
    bundles.save(bundle, workdir, metrics=metrics)
    return bundle


def _made_with():
    return {"processor": processor(), "versions": versions("keras-convmixer", "keras", keras.backend.backend())}


def _refuse_another_recipes(workdir, recipe):
    """Raises ValueError if a folder is the run of another recipe."""
    path = workdir / "recipe.yaml"
    differences = recipe.differences(Recipe.load(path)) if path.exists() else ()
    if differences:
        raise UserError(
            f"{workdir} is the run of another recipe ({'; '.join(differences[:4])}); choose another --workdir"
        )


def _say_what_it_takes(recipe, bundle, precision):
    """Prints an estimate of a step's memory, on a CPU. Raises UserError where there is not as much."""
    settings = recipe.training
    needed = memory.step_bytes(
        architecture(bundle.model),
        bundle.preprocessing.input_size,
        settings.batch_size,
        precision,
        settings.rematerialize,
    )
    available = memory.check(needed)
    if needed > 2e9:
        print(f"a step takes about {needed / 1e9:.1f} of {available / 1e9:.0f} GB", file=sys.stderr)
