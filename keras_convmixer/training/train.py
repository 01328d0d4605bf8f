"""Training: a recipe and a folder in, a model folder out. The same call resumes."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np

from keras_convmixer import bundles, files
from keras_convmixer.data import datasets, pipeline
from keras_convmixer.data.unreadable import Unreadable
from keras_convmixer.errors import UserError
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint, distribute, dtype_policy
from keras_convmixer.training.allocator import keep_freed_memory
from keras_convmixer.training.build import build
from keras_convmixer.training.compiled import compiled
from keras_convmixer.training.ema import MovingAverage
from keras_convmixer.training.evaluate import Meter
from keras_convmixer.training.validation import Validation


@pipeline.in_use()
def train(recipe, workdir, *, devices=None, verbose="auto"):
    """Trains a ConvMixer, or goes on with a training that was interrupted.

    Args:
        recipe: a `Recipe`. workdir: the run's folder. After every epoch it holds `checkpoints/`,
            `history.csv` and TensorBoard's `logs/`; at the end it is a model folder (see `bundle`), whose
            `metrics.json` was measured on the held-out split.
        devices: names of the devices to share each batch out to, such as ("GPU:0", "GPU:1"). Default: every
            GPU there is. For more than one CPU, TensorFlow must not have started yet.
        verbose: as Keras's `fit`: 0 silent, 1 progress bar, 2 one line an epoch, "auto".

    Returns:
        The trained model's `bundle.Bundle`.

    Raises:
        ValueError: the data or the recipe is not fit for training, `workdir` is another recipe's run, or the
            loss is no longer finite. OSError: a file cannot be read or written, or the images are no longer there.
    """
    keep_freed_memory()
    workdir = Path(workdir)
    _refuse_another_recipes(workdir, recipe)
    with distribute.on(devices) as strategy:
        precision = dtype_policy.of(recipe.training.precision, devices)
        return _train(recipe, workdir, strategy, precision, verbose)


def _train(recipe, workdir, strategy, precision, verbose):
    data, training = recipe.data, recipe.training
    dataset = datasets.open_dataset(
        data.source,
        validation_fraction=data.validation_fraction,
        seed=recipe.seed,
        allow_corrupt=data.allow_corrupt,
    )
    images = dataset.training()
    steps = pipeline.steps_per_epoch(images, training.batch_size)
    replicas = strategy.num_replicas_in_sync
    if training.batch_size % replicas:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out equally over {replicas} devices"
        )

    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        bundle = build(recipe.model, dataset.classes)
        for layer in bundle.model.layers:
            layer.trainable = layer.name == "head" or not training.freeze_backbone
        trained = compiled(recipe, bundle.model, steps, precision)
        average = MovingAverage(trained, training.ema) if training.ema else None
    # Only now is the folder this recipe's: what failed before this line leaves nothing in the way of another try.
    files.write_text(workdir / "recipe.yaml", recipe.to_yaml())
    checkpoints = checkpoint.Checkpoints(workdir, average, training.early_stopping)
    done = checkpoints.resume(trained)
    meter = Meter(
        dataset.held_out(),
        dataset.held_out_name,
        bundle.preprocessing,
        training.batch_size,
        fill=replicas > 1,
    )

    if done < training.epochs and not checkpoints.stopped_early:
        if done:
            print(f"{workdir}: going on after epoch {done} of {training.epochs}", file=sys.stderr)
        unreadable = Unreadable(images)
        trained.fit(
            pipeline.training_batches(
                images,
                bundle.preprocessing,
                recipe.augmentation,
                batch_size=training.batch_size,
                seed=recipe.seed,
                epochs=training.epochs,
                first_epoch=done,
                label_smoothing=training.label_smoothing,
                class_weights=_class_weights(images) if training.class_weights else None,
                unreadable=unreadable,
            ),
            initial_epoch=done,
            epochs=training.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the stream is in its own random order already
            callbacks=[
                *([average] if average else []),
                Validation(meter, bundle, strategy, average, unreadable),
                checkpoints,
                keras.callbacks.TensorBoard(workdir / "logs"),
            ],
            verbose=verbose,
        )
    if training.early_stopping:
        checkpoint.restore(checkpoints.best, trained, average.variables if average else None)
    if average:
        average.apply()
    bundle.model.set_weights(trained.get_weights())

    metrics = {"epochs": len(checkpoints.history), "precision": precision} | meter.measure(bundle).summary()
    bundle = dataclasses.replace(bundle, path=workdir)
    bundles.save(bundle, workdir, metrics=metrics)
    return bundle


def _refuse_another_recipes(workdir, recipe):
    """Raises ValueError if a folder is the run of another recipe."""
    path = workdir / "recipe.yaml"
    differences = recipe.differences(Recipe.load(path)) if path.exists() else ()
    if differences:
        raise UserError(
            f"{workdir} is the run of another recipe ({'; '.join(differences[:4])}); choose another --workdir"
        )


def _class_weights(images):
    """Each class's weight, the inverse of its frequency, 1 on average over the images."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return len(images) / (len(images.classes) * counts)
