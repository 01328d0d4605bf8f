"""The state of a training as one safetensors file, and the callback that keeps the last ones."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_convmixer import files
from keras_convmixer.errors import UserError
from keras_convmixer.training.hosts import ALONE
from keras_convmixer.training.run_lock import FOLDER

# Processes that train together look so often whether one of them was told to stop: each look waits for the others.
_TOGETHER = 10


class DamagedError(UserError):
    """A file that is no checkpoint, or no longer the one that was written."""


@dataclasses.dataclass
class Position:
    """How far a training is.

    Attributes:
        history: a row of figures for each epoch done.
        step: steps done in the epoch begun; 0 at the start of one. Where these are all, it is not measured yet.
        means: the figures of these steps. seconds: what they took.
        unreadable: positions of the images that could not be read for them.
        images: the source's `digest`, as it was written with. choices: see `choices.Choices`, as a dictionary.
    """

    history: list
    step: int = 0
    means: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    unreadable: list = dataclasses.field(default_factory=list)
    images: str = ""
    choices: dict = dataclasses.field(default_factory=dict)

    @property
    def epoch(self):
        """The epoch, from 0, in which training goes on."""
        return len(self.history)

    def joined(self, logs, steps):
        """The means of an epoch's first `steps` steps, of those of its steps since this position."""
        share = self.step / steps
        return {k: self.means.get(k, 0.0) * share + float(v) * (1 - share) for k, v in logs.items()}

    def __str__(self):
        return f"epoch {self.epoch}" if not self.step else f"step {self.step} of epoch {self.epoch + 1}"


def state(model, average=None):
    """Every variable of a compiled model, its optimizer and its moving average, as named numpy arrays."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    if average is not None:
        groups["average"] = average
    # Paths alone are not unique: two layers of a clone, or two slots of an optimizer, may share one.
    return {
        f"{group}/{i:04d}/{variable.path}": np.asarray(keras.ops.convert_to_numpy(variable))
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def assign(arrays, path, model, average=None):
    """Sets what `state` gave, as `read` from a path. Raises UserError if it is another model's."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables, "average": average or []}
    for group, variables in groups.items():
        stored = sorted(key for key in arrays if key.startswith(f"{group}/"))
        if [arrays[key].shape for key in stored] != [tuple(variable.shape) for variable in variables]:
            raise UserError(f"{path} holds the state of another model; start again in a new folder")
        for key, variable in zip(stored, variables):
            variable.assign(arrays[key])


def write(path, arrays, progress):
    """Writes named arrays, and a dictionary `progress` beside them, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    text = json.dumps(progress)
    with files.replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, {"progress": text, "hash": _hash(arrays, text)})
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from None


def read(path):
    """The arrays and the progress that `write` wrote. Raises DamagedError where these are no longer they."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
        progress = json.loads(metadata["progress"])
        intact = metadata["hash"] == _hash(arrays, metadata["progress"])
    except KeyError as error:
        raise DamagedError(f"{path} is not a checkpoint, or is damaged: it has no {error}") from None
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is not a checkpoint, or is damaged: {error}") from None
    if not intact:
        raise DamagedError(f"{path} is not a checkpoint, or is damaged: its content is not what was written")
    return arrays, progress


def read_position(path):
    """The arrays and the `Position` that are in a checkpoint. Raises DamagedError where it is none."""
    arrays, progress = read(path)
    try:
        return arrays, Position(**progress)
    except TypeError:
        raise DamagedError(f"{path} is not a checkpoint, or is damaged: it does not say how far it is") from None


def newest_progress(folder):
    """The progress of the newest checkpoint in a run's folder that is whole; an empty one where there is none."""
    for path in kept(folder):
        with contextlib.suppress(DamagedError):
            return dataclasses.asdict(read_position(path)[1])
    return {}


def _hash(arrays, text):
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        digest.update(arrays[key].tobytes())
    return digest.hexdigest()


def kept(folder):
    """The checkpoints in a run's folder, the newest first. Their names say how far each is."""
    return sorted((Path(folder) / FOLDER).glob("*.safetensors"), reverse=True)


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint at the end of every epoch and every so many minutes, keeps the last, and `history.csv`.

    All that a resumed training needs is in one: variables, optimizer, moving average, the data's position, and the
    history, of which the best epoch and early stopping are functions. To stand after the moving average, which a
    step must have reached before it is written.

    Args:
        folder: the run's folder.
        average: the `MovingAverage` callback, or None.
        settings: the recipe's `Training`.
        source: what the batches come from, see `training.sources`.
        save_model: called at the end of an epoch, before its checkpoint is written, with whether it is the best.
        interruption: an `Interruption`, which is obeyed once a step is done and written, and where an epoch begins.
        hosts: the `Hosts` that train together, of which the first reads and writes.
        choices: the run's `Choices` as a dictionary, which are written with each.
    """

    def __init__(self, folder, average, settings, source, save_model, interruption, hosts=ALONE, choices=None):
        super().__init__()
        self.folder, self.table = Path(folder), Path(folder) / "history.csv"
        self.average, self.settings, self.source = average, settings, source
        self.save_model, self.interruption, self.hosts = save_model, interruption, hosts
        self.choices = choices or {}
        self.start = Position([])
        self.history = self.start.history

    def resume(self, model):
        """Restores the newest state that is whole, if there is one. Returns its `Position`.

        Raises:
            UserError: there are checkpoints, and all are damaged or of another model.
        """
        arrays = {}
        newest = self.hosts.from_first(lambda: self._newest(arrays))
        if newest:
            path, progress = newest
            assign(self.hosts.arrays_from_first(arrays), path, model, self._average_variables())
            self.start = Position(**progress)
        self.history = self.start.history
        self.source.note_again(self.start.epoch, self.start.unreadable)
        if self.history and self.hosts.first:  # a kill may have come between a checkpoint and its row
            files.write_text(self.table, _csv(self.history))
        return self.start

    def _newest(self, arrays):
        """Path and progress of the newest checkpoint that is whole, whose arrays go into a dictionary; or None."""
        found = kept(self.folder)
        for path in found:
            try:
                stored, position = read_position(path)
            except DamagedError as damage:
                print(f"{damage}; taking the one before", file=sys.stderr)
                path.rename(path.with_name(f"{path.name}.damaged"))
            else:
                arrays.update(stored)
                return str(path), dataclasses.asdict(position)
        if found:
            raise UserError(f"none of the checkpoints in {self.folder} is whole; start again in a new folder")
        return None

    @property
    def best_epoch(self):
        """The epoch (from 0) of the best validation accuracy; of equals the first."""
        return max(range(len(self.history)), key=lambda i: self.history[i]["val_accuracy"])

    @property
    def stopped_early(self):
        patience = self.settings.early_stopping
        return bool(patience and self.history) and len(self.history) - 1 - self.best_epoch >= patience

    def on_train_begin(self, logs=None):
        self._written = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()
        # Not at the last one's end: other callbacks still have to learn of it.
        self.interruption.agree()
        self.interruption.obey()

    def on_train_batch_end(self, batch, logs=None):
        step, minutes = self.start.step + batch + 1, self.settings.checkpoint_minutes
        if step % _TOGETHER == 0:
            self.interruption.agree()
        due = minutes is not None and time.monotonic() - self._written >= 60 * minutes
        if not (due or self.interruption.asked) or step >= self.source.steps:
            return
        if self.source.starts_at_steps:
            self.write_within(step, logs, time.monotonic() - self._began)
        self.interruption.obey()

    def write_within(self, step, logs, seconds):
        """Writes a state within an epoch.

        Args:
            step: how many steps of the epoch are done.
            logs: the figures of those since `start`. seconds: what these took.
        """
        means, noted = self.start.joined(logs, step), self.source.noted(len(self.history))
        self._write(Position(self.history, step, means, self.start.seconds + seconds, noted))

    def on_epoch_end(self, epoch, logs=None):
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()} | {"learning_rate": rate}
        self.history.append(row)
        # The model comes first: where a checkpoint says that an epoch is done, its model is there.
        self.save_model(self.best_epoch == epoch)
        self.start = Position(self.history)
        self._write(self.start)
        if self.hosts.first:
            files.write_text(self.table, _csv(self.history))
        self.model.stop_training = self.model.stop_training or self.stopped_early

    def _write(self, position):
        """Writes a state, unless its last step has spoilt it, which the loss of the next will show."""
        if not self.hosts.first:
            return
        arrays = state(self.model, self._average_variables())
        floats = [*position.means.values(), *(array for array in arrays.values() if array.dtype.kind == "f")]
        if not all(np.isfinite(array).all() for array in floats):
            return
        name = f"{position.epoch:04d}-epochs-{position.step:06d}-steps.safetensors"
        position = dataclasses.replace(position, images=self.source.digest, choices=self.choices)
        write(self.folder / FOLDER / name, arrays, dataclasses.asdict(position))
        self._written = time.monotonic()
        for old in kept(self.folder)[self.settings.checkpoints_kept :]:
            old.unlink()

    def _average_variables(self):
        return self.average.variables if self.average else None


class Rejoined(keras.callbacks.Callback):
    """Completes the figures of an epoch whose first steps were trained before an interruption.

    To stand after `Validation`. Args: start: the `Position` at which it goes on. source: see `Checkpoints`.
    """

    def __init__(self, start, source):
        super().__init__()
        self.start, self.source = start, source

    def on_epoch_end(self, epoch, logs=None):
        trained = {name: logs[name] for name in self.start.means}
        logs |= self.start.joined(trained, self.source.steps)
        logs["seconds"] += self.start.seconds
        if "images_per_second" in logs:
            logs["images_per_second"] = self.source.images_per_epoch / logs["seconds"]


def _csv(rows):
    text = io.StringIO()
    # Not every epoch has the same figures: only one with unreadable images counts them.
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
