"""Training: a recipe and a folder in, a model folder out. The same call resumes."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer import bundles, files
from keras_convmixer.data import datasets, pipeline
from keras_convmixer.data.unreadable import Unreadable
from keras_convmixer.errors import UserError
from keras_convmixer.training import checkpoint, distribute
from keras_convmixer.training.allocator import keep_freed_memory
from keras_convmixer.training.average import MovingAverage
from keras_convmixer.training.build import build
from keras_convmixer.training.evaluate import measure
from keras_convmixer.training.optimizer import AdamW, rate_multipliers
from keras_convmixer.training.recipe import Recipe
from keras_convmixer.training.schedule import OneCycle
from keras_convmixer.training.training_model import training_model


@pipeline.in_use()
def train(recipe, workdir, *, devices=None, verbose="auto"):
    """Trains a ConvMixer, or goes on with a training that was interrupted.

    Args:
        recipe: a `Recipe`. workdir: the run's folder. After every epoch it holds `checkpoints/`,
            `history.csv` and TensorBoard's `logs/`; at the end it is a model folder (see `bundle`), whose
            `metrics.json` was measured on the held-out split.
        devices: names of the devices to share each batch out to, such as ("GPU:0", "GPU:1"). Default: every
            GPU there is.
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
    data, training = recipe.data, recipe.training
    dataset = datasets.open_dataset(
        data.source,
        validation_fraction=data.validation_fraction,
        seed=recipe.seed,
        allow_corrupt=data.allow_corrupt,
    )
    images, held_out = dataset.training(), dataset.held_out()
    unreadable = _CountUnreadable(images, held_out)
    steps = pipeline.steps_per_epoch(images, training.batch_size)

    keras.utils.set_random_seed(recipe.seed)
    strategy = distribute.strategy(devices)
    if training.batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out equally "
            f"over {strategy.num_replicas_in_sync} devices"
        )
    with distribute.scope(strategy):
        bundle = build(recipe.model, dataset.classes)
        for layer in bundle.model.layers:
            layer.trainable = layer.name == "head" or not training.freeze_backbone
        trained = compiled(recipe, bundle.model, steps)
        average = MovingAverage(trained, training.ema) if training.ema else None
    # Only now is the folder this recipe's: what failed before this line leaves nothing in the way of another try.
    files.write_text(workdir / "recipe.yaml", recipe.to_yaml())
    checkpoints = checkpoint.Checkpoints(workdir, strategy, average, training.early_stopping)
    done = checkpoints.resume(trained)

    if done < training.epochs and not checkpoints.stopped_early:
        if done:
            print(f"{workdir}: going on after epoch {done} of {training.epochs}", file=sys.stderr)
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
                unreadable=unreadable.training,
            ),
            validation_data=_labelled(held_out, bundle.preprocessing, training.batch_size, unreadable.read),
            initial_epoch=done,
            epochs=training.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the stream is in its own random order already
            # The order matters: replicas are averaged before the moving average steps in for validation.
            callbacks=[
                unreadable,
                checkpoints,
                *([average] if average else []),
                keras.callbacks.TensorBoard(workdir / "logs"),
            ],
            verbose=verbose,
        )
    if training.early_stopping:
        checkpoint.restore(checkpoints.best, trained, average.variables if average else None)
    if average:
        average.apply()
    bundle.model.set_weights(trained.get_weights())

    result = measure(bundle, held_out, dataset.held_out_name, batch_size=training.batch_size)
    metrics = {"epochs": len(checkpoints.history)} | result.summary()
    bundle = dataclasses.replace(bundle, path=workdir)
    bundles.save(bundle, workdir, metrics=metrics)
    return bundle


def compiled(recipe, model, steps):
    """The `training_model` of a plain model, compiled with the recipe's optimizer and loss."""
    trained = training_model(model, recipe.training.precision, recipe.training.rematerialize)
    trained.compile(
        optimizer=_optimizer(recipe, trained, steps),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _refuse_another_recipes(workdir, recipe):
    """Raises ValueError if a folder is the run of another recipe."""
    path = workdir / "recipe.yaml"
    differences = recipe.differences(Recipe.load(path)) if path.exists() else ()
    if differences:
        raise UserError(
            f"{workdir} is the run of another recipe ({'; '.join(differences[:4])}); choose another --workdir"
        )


def _optimizer(recipe, model, steps):
    """The recipe's AdamW under its triangle."""
    settings = recipe.optimizer
    return AdamW(
        OneCycle(settings.learning_rate, recipe.training.epochs, steps),
        weight_decay=settings.weight_decay,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        epsilon=settings.epsilon,
        decay_1d=settings.decay == "all",
        multipliers=rate_multipliers(model, settings.backbone_multiplier, settings.layer_decay),
        global_clipnorm=settings.clip_norm,
    )


def _class_weights(images):
    """Each class's weight, the inverse of its frequency, 1 on average over the images."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return len(images) / (len(images.classes) * counts)


def _labelled(images, preprocessing, batch_size, read):
    batches = pipeline.evaluation_batches(images, preprocessing, batch_size, images.labels, read)
    return batches.map(lambda pixels, labels: (pixels, tf.one_hot(labels, len(images.classes))))


class _CountUnreadable(keras.callbacks.Callback):
    """Adds to an epoch's figures how many images could not be read, where there are any."""

    def __init__(self, images, held_out):
        super().__init__()
        self.training, self.validation = Unreadable(images), Unreadable(held_out)
        self.read, self._all = set(), set(range(len(held_out)))

    def on_test_begin(self, logs=None):
        self.read.clear()

    def on_epoch_end(self, epoch, logs=None):
        for index in sorted(self._all - self.read):
            self.validation.note(epoch, index)
        counts = {"unreadable": self.training.count(epoch), "val_unreadable": self.validation.count(epoch)}
        logs.update({name: count for name, count in counts.items() if count})
