"""The state of a training as one safetensors file, and the callback that writes it after every epoch."""

import csv
import io
import json
import math
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_convmixer import files
from keras_convmixer.errors import UserError


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


def restore(path, model, average=None):
    """Sets what `state` gave.

    Raises:
        ValueError: the file is damaged or is another model's.
    """
    arrays, _ = read(path)
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
    with files.replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, {"progress": json.dumps(progress)})
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from None


def read(path):
    """The arrays and the progress that `write` wrote. Raises ValueError where they cannot be read."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["progress"])  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint, or is damaged: {error}") from None


class Checkpoints(keras.callbacks.Callback):
    """Keeps `checkpoints/last.safetensors` and, by validation accuracy, `best.safetensors`, and `history.csv`.

    All that a resumed training needs is in `last`: variables, optimizer, moving average, and the history, of
    which the best epoch and early stopping are functions.

    Args:
        folder: the run's folder.
        average: the `MovingAverage` callback, or None.
        early_stopping: epochs without a better validation accuracy before stopping, or None.
    """

    def __init__(self, folder, average=None, early_stopping=None):
        super().__init__()
        self.last = Path(folder) / "checkpoints" / "last.safetensors"
        self.best = Path(folder) / "checkpoints" / "best.safetensors"
        self.table = Path(folder) / "history.csv"
        self.average = average
        self.early_stopping = early_stopping
        self.history = []

    def resume(self, model):
        """Restores the last epoch's state, if there is one. Returns the number of epochs done."""
        if self.last.exists():
            restore(self.last, model, self._average_variables())
            self.history = read(self.last)[1]["history"]
        return len(self.history)

    @property
    def best_epoch(self):
        """The epoch (from 0) of the best validation accuracy; of equals the first."""
        return max(range(len(self.history)), key=lambda i: self.history[i]["val_accuracy"])

    @property
    def stopped_early(self):
        patience = self.early_stopping
        return bool(patience and self.history) and len(self.history) - 1 - self.best_epoch >= patience

    def on_epoch_end(self, epoch, logs=None):
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()} | {"learning_rate": rate}
        if not math.isfinite(row["loss"]):
            raise UserError(_not_finite(row, self.last if self.history else None))
        self.history.append(row)
        arrays = state(self.model, self._average_variables())
        if self.best_epoch == epoch:
            write(self.best, arrays, {"history": self.history})
        write(self.last, arrays, {"history": self.history})
        files.write_text(self.table, _csv(self.history))
        self.model.stop_training = self.model.stop_training or self.stopped_early

    def _average_variables(self):
        return self.average.variables if self.average else None


def _not_finite(row, last):
    kept = f". {last} keeps the state after epoch {row['epoch'] - 1}" if last else ""
    return (
        f"the loss is {row['loss']} in epoch {row['epoch']}: train anew, in another --workdir, with a lower "
        f"optimizer.learning_rate or a lower optimizer.clip_norm{kept}"
    )


def _csv(rows):
    text = io.StringIO()
    # Not every epoch has the same figures: only one with unreadable images counts them.
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
