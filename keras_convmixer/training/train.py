"""Training: a recipe and a folder in, a model folder out. The same call resumes."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Sequence

import keras

from keras_convmixer import bundles, files
from keras_convmixer.data.unreadable import stream_in_use
from keras_convmixer.errors import UserError, one_line
from keras_convmixer.machine import processor, versions
from keras_convmixer.pages.record import Record
from keras_convmixer.pages.run_page import NAME as REPORT
from keras_convmixer.pages.run_page import run_page
from keras_convmixer.parts import parameter_count
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint, distribute, dtype_policy, memory, run_folder, run_lock
from keras_convmixer.training.allocator import keep_freed_memory
from keras_convmixer.training.build import build
from keras_convmixer.training.checkpoint import Checkpoints, Rejoined
from keras_convmixer.training.choices import Choices, choices
from keras_convmixer.training.compiled import compiled
from keras_convmixer.training.divergence import LossWatch, NotFiniteError
from keras_convmixer.training.ema import MovingAverage
from keras_convmixer.training.frozen_features import FrozenFeatures
from keras_convmixer.training.header import header
from keras_convmixer.training.hosts import SharedInterruption, here
from keras_convmixer.training.interruption import Interruption
from keras_convmixer.training.progress_line import watched
from keras_convmixer.training.progressive_resizing import check, pieces, pixels, resized
from keras_convmixer.training.sources import OwnData, RecipeData, own_labels_in_use
from keras_convmixer.training.tensorboard import Pictures
from keras_convmixer.training.validation import Validation

_MOST_ROLLBACKS = 3


@stream_in_use()
@own_labels_in_use()
def train(
    recipe: Recipe | str | os.PathLike | None,
    workdir: str | os.PathLike,
    *,
    changes: Iterable[str] | dict = (),
    data: tuple | None = None,
    classes: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> bundles.Bundle:
    """Trains a ConvMixer, or goes on with a training that was interrupted.

    Args:
        recipe: a `Recipe`, or what `Recipe.load` takes: a name, a YAML file or a folder; or None for that of the
            run in workdir, which goes on.
        workdir: the run's folder. It holds `checkpoints/`, `history.csv` and TensorBoard's `logs/`. After every
            epoch it is a model folder (see `bundles`) of this epoch, and its `best` that of the best. At the end it
            is that of the training, with a `metrics.json` that was measured on the held-out split, and a
            `report.html` that shows it.
        changes: with recipe None, what is different from here on, as `Recipe.load` takes it: epochs, the place of
            the images, the learning rate (see `run_folder`). It is recorded in `changes.json`.
        data: batches of your own instead of the recipe's data: (training, held out), two `tf.data.Dataset`s; see
            `sources.OwnData`. They come with classes: the class names, in the order of the labels.
        devices: names of the devices to share each batch out to, such as ("GPU:0", "GPU:1"). Default: every GPU
            there is; on JAX the first of a process alone. For more than one CPU, TensorFlow must not have started
            yet.
        callbacks: Keras's, called after this package's own: an epoch's figures have `val_loss` and `val_accuracy`
            then. `self.model` is the clone that trains (see `training_model`).
        verbose: what is said on stderr: 1 what trains (see `header`), a bar and a line an epoch, 2 the same
            without the bar, 0 none of these. Warnings are given all the same. "auto" is 1.

    Returns:
        The trained model's `Bundle`.

    Where JAX's distributed runtime was started (`keras.distribution.initialize`), all processes call this alike and
    train together: see `hosts`. Each gets the model; the first one writes the folder.

    Raises:
        UserError (a ValueError): the data or the recipe is not fit for training, `workdir` is another recipe's run,
            another process trains in it, or the loss is no longer finite. OSError: a file cannot be read or
            written, or the images are no longer there.
    """
    keep_freed_memory()
    workdir = files.expanded(workdir)
    with distribute.on(devices) as strategy:
        hosts = here()
        recipe = run_folder.resolved(workdir, recipe, changes, hosts, own_batches=data is not None)
        hardware = dtype_policy.hardware(devices)
        if data is None:
            source = RecipeData(recipe, hosts)
            hosts.refuse_unequal(f"images in {recipe.data.source}", source.classes, source.images.names)
            hosts.from_first(lambda: run_folder.refuse_other_images(workdir, recipe, source))
        elif hosts.count > 1:
            raise UserError(
                "batches of your own are for one process: several each read their share of the recipe's"
            )
        else:
            source = OwnData(recipe, data, classes)
        while True:
            try:
                return _train(recipe, workdir, source, strategy, hosts, hardware, callbacks, verbose)
            except NotFiniteError as error:
                hosts.from_first(functools.partial(_roll_back, recipe, workdir, error))


def _train(recipe, workdir, source, strategy, hosts, hardware, callbacks, verbose):
    training, on_cpu = recipe.training, hardware.kind == "CPU"
    replicas = strategy.num_replicas_in_sync * hosts.devices
    if training.batch_size % replicas:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out equally over {replicas} devices"
        )
    of_recipe = isinstance(source, RecipeData)
    may_cache = of_recipe and replicas == 1
    made = hosts.from_first(lambda: dataclasses.asdict(choices(workdir, training, hardware, may_cache)))
    chosen = Choices(**made)
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        bundle = build(run_folder.start(workdir, recipe.model), source.classes, source.sample)
        plain = bundle.model
        for layer in bundle.model.layers:
            layer.trainable = layer.name == "head" or not chosen.frozen
        check(training, bundle, resizes=of_recipe and not chosen.cached)
        if chosen.cached:
            source = FrozenFeatures(source, bundle)
            plain = source.head
        elif on_cpu and not chosen.frozen:  # a GPU's memory is its own, and its libraries' needs differ
            memory.check(memory.run_bytes(recipe, bundle, chosen.precision, hosts.count))
        # Computed apart, weights need not be equal to the bit.
        plain.set_weights(hosts.from_first_arrays(plain.get_weights))
        rollbacks = hosts.from_first(lambda: run_folder.rollbacks(workdir))
        with hosts.scope():
            trained = compiled(_with_lower_peak(recipe, rollbacks), plain, source.steps, chosen.precision)
            average = MovingAverage(trained, training.ema) if training.ema else None
        for layer in bundle.model.layers:
            layer.trainable = True  # how this training went is no matter of the model that is saved
    # Only now is the folder this recipe's: what failed before this line leaves nothing in the way of another try.
    with contextlib.ExitStack() as stack:
        hosts.from_first(lambda: stack.enter_context(run_lock.held(workdir)))
        interruption = stack.enter_context(SharedInterruption(hosts) if hosts.count > 1 else Interruption())

        def save_model(best):
            with average.lent() if average else contextlib.nullcontext():
                plain.set_weights(trained.get_weights())
            if hosts.first:
                run_folder.save_model(bundle, workdir, best)

        checkpoints = Checkpoints(workdir, average, training, source, save_model, interruption, hosts, made)
        start = checkpoints.resume(trained)
        hosts.from_first(lambda: run_folder.begin(workdir, recipe, start))
        meter = source.meter(bundle.preprocessing, replicas)
        if not start.epoch:
            hosts.from_first(lambda: source.note_images(workdir))
        if start.epoch < training.epochs and not checkpoints.stopped_early:
            first = [average] if average else []
            first += [LossWatch(checkpoints), Validation(meter, bundle.classes, strategy, checkpoints)]
            last = [checkpoints, *callbacks]
            if hosts.first:
                for of_its_end in ("metrics.json", REPORT):
                    (workdir / of_its_end).unlink(missing_ok=True)
                logs = workdir / "logs"
                last[1:1] = [keras.callbacks.TensorBoard(logs), Pictures(logs / "images", bundle, source, training)]
            work = pixels(training, bundle.preprocessing.input_size)
            said = header(workdir, recipe, bundle, source, hardware, chosen, start, hosts)
            with watched(said, source, work, verbose if hosts.first else 0) as line, hosts.scope():
                _fit(trained, bundle.preprocessing, checkpoints, training, first, [*line, *last])
            interruption.agree()
            interruption.obey()
    if training.early_stopping:
        best = hosts.from_first_arrays(lambda: bundles.load(workdir / "best").model.get_weights())
        bundle.model.set_weights(best)
    else:
        if average:
            average.apply()
        plain.set_weights(trained.get_weights())
    evaluation = meter.measure(plain, bundle.classes)
    metrics = {"epochs": len(checkpoints.history), "precision": chosen.precision, "frozen": chosen.frozen}
    if training.early_stopping:
        metrics["best_epoch"] = checkpoints.best_epoch + 1
    metrics |= {"parameters": parameter_count(bundle.model)} | _made_with(hardware, hosts) | evaluation.summary()
    metrics |= {"data": source.described()}
    bundle = dataclasses.replace(bundle, path=workdir)
    hosts.from_first(lambda: bundles.save(bundle, workdir, metrics=metrics))
    if hosts.first:
        _report(bundle, evaluation)
    return bundle


def _report(bundle, evaluation):
    """Writes the run's page. Whatever goes wrong, the training is done: it costs a line, not the run."""
    try:
        page = run_page(Record.read(bundle.path), bundle, evaluation)
        files.write_text(bundle.path / REPORT, page)
    except Exception as error:
        print(f"{bundle.path}: there is no {REPORT}: {one_line(error)}", file=sys.stderr)


def _fit(trained, preprocessing, checkpoints, training, first, last):
    """Trains from where `checkpoints` starts, with a `fit` for each of the `pieces`."""
    start, source = checkpoints.start, checkpoints.source
    before = None
    for piece in pieces(training, preprocessing.input_size, start):
        if before and trained.stop_training:
            break
        callbacks = [*first, *([Rejoined(start, source)] if piece.step else []), *last]
        if piece.step == source.steps:
            _measure(trained, piece.epoch, start.means, callbacks)
        else:
            if before and before.input_size != piece.input_size:
                trained.make_train_function(force=True)  # for one size alone it is faster than for any
            trained.fit(
                source.batches(resized(preprocessing, piece), first_epoch=piece.epoch, first_step=piece.step),
                initial_epoch=piece.epoch,
                epochs=piece.end,
                steps_per_epoch=source.steps - piece.step,
                shuffle=False,  # the stream is in its own random order already
                callbacks=callbacks,
                verbose=0,  # `watched` says more
            )
        before = piece


def _measure(trained, epoch, figures, callbacks):
    """Ends an epoch of which all steps are done, with these figures, as `fit` ends one."""
    called = keras.callbacks.CallbackList(callbacks, model=trained, epochs=epoch + 1, steps=0)
    called.on_train_begin()
    called.on_epoch_begin(epoch)
    called.on_epoch_end(epoch, figures)
    called.on_train_end()


def _roll_back(recipe, workdir, error):
    """Records that a training goes back to its last checkpoint at a lower rate. Raises the error if it may not."""
    last = checkpoint.kept(workdir)
    if recipe.training.on_nan != "rollback" or not last or run_folder.rollbacks(workdir) == _MOST_ROLLBACKS:
        raise error
    run_folder.record_rollback(workdir, last[0].name, error.what)
    print(f"{workdir}: going back to {last[0].name}, with half the learning rate: {error.what}", file=sys.stderr)


def _with_lower_peak(recipe, rollbacks):
    """The recipe with the learning rate that the rollbacks so far have left of its own."""
    rate = recipe.optimizer.learning_rate / 2**rollbacks
    return dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate))


def _made_with(hardware, hosts):
    packages = ("keras-convmixer", "keras", "tensorflow", keras.backend.backend())
    made_with = {"devices": list(hardware.names), "processor": processor(), "versions": versions(*packages)}
    return made_with if hosts.count == 1 else {"processes": hosts.count} | made_with
