"""Photographs into class names."""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from keras_convmixer import bundles, class_names, files
from keras_convmixer.data import decode
from keras_convmixer.data.unreadable import reason
from keras_convmixer.errors import UserError
from keras_convmixer.exported.loaded import ExportedBundle, load
from keras_convmixer.inference.image_files import find_images
from keras_convmixer.reports import Tabular


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model sees in a file.

    Attributes:
        path: the file; of an image from an address or stdin its address or "-", a string.
        classes: the likeliest classes, best first: `(name, probability)`; for ImageNet its words. Empty for a file
            that is no image.
        error: in one line, why it could not be read; else None.
    """

    path: Path | str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def summary(self) -> dict:
        """Its `path`, and `classes` or `error`, as plain values."""
        if self.error:
            return {"path": str(self.path), "error": self.error}
        found = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {"path": str(self.path), "classes": found}


class Predictions(list[Prediction], Tabular):
    """A list of `Prediction`, in the order of the files, that is a report too."""

    def summary(self) -> list[dict]:
        return [prediction.summary() for prediction in self]

    def lines(self) -> list[str]:
        """For each file its name, then its classes with their probabilities, or its error."""
        lines = []
        for prediction in self:
            lines.append(str(prediction.path))
            if prediction.error:
                lines.append(f"  error: {prediction.error}")
            lines += [f"  {probability:7.2%}  {name}" for name, probability in prediction.classes]
        return lines

    def records(self) -> list[list]:
        """A row for each class of each file; for a file that could not be read, one with its error."""
        records: list[list] = [["path", "class", "probability", "error"]]
        for prediction in self:
            records += [[prediction.path, name, probability, None] for name, probability in prediction.classes]
            if prediction.error:
                records.append([prediction.path, None, None, prediction.error])
        return records


def predict(
    model: bundles.Bundle | ExportedBundle | keras.Model | str | os.PathLike,
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    top: int = 5,
    batch_size: int = 32,
) -> Predictions:
    """Classifies image files.

    Args:
        model, classes: what `load` takes: a folder, a name, a `keras.Model` with class names, an exported file...
        paths: a path or several, each a file, a folder (searched with all that is below it for image files), a
            pattern with `*`, `?`, `[...]` or `**`, an http:// or https:// address of an image, or "-", an image on
            stdin. `~` is the user's home.
        top: how many classes to name; all of them where the model has fewer.
        batch_size: images at a time.

    Returns:
        `Predictions`, a list in the order of the paths, each file once. What is no image, or is not there, has
        an `error`.

    Raises:
        FileNotFoundError: nothing is there at any of the paths. ValueError: top or batch_size is below 1.
    """
    check_counts(top, batch_size)
    with tempfile.TemporaryDirectory() as room:
        found = find_images([paths] if isinstance(paths, (str, Path)) else paths, Path(room))
        return Predictions(predictions_of(load(model, classes), found, top, batch_size))


def check_counts(top, batch_size):
    """Raises UserError where one of them is below 1."""
    if top < 1 or batch_size < 1:
        raise UserError(f"top and batch_size must be at least 1, got {top} and {batch_size}")


def predictions_of(bundle, found, top, batch_size):
    """Gives the `Prediction` of each `ImageFile` of a list, in its order, holding one batch in memory at a time."""
    paths = [file.path for file in found if file.error is None]
    read = iter(decoded(paths, files.read_regular, bundle.preprocessing))
    images = ((None, file.error) if file.error is not None else next(read) for file in found)
    for start in range(0, len(found), batch_size):
        batch = list(itertools.islice(images, batch_size))
        for file, (classes, error) in zip(found[start : start + batch_size], _likeliest(bundle, batch, top)):
            yield Prediction(file.name, classes, error)


class Predictor:
    """Classifies batches of encoded images, as Ray Data's `map_batches` hands them to a class.

    Args:
        model, classes, top: as for `predict`. The model is loaded once, when this is made.
        column: the column that holds the images' bytes.
    """

    def __init__(self, model, *, classes=None, top=5, column="bytes"):
        if top < 1:
            raise UserError(f"top must be at least 1, got {top}")
        self._bundle, self._top, self._column = load(model, classes), top, column

    def __call__(self, batch):
        """The other columns of a batch (a dictionary of arrays of one length), and of each image `classes`, its
        likeliest, `probabilities`, theirs, and `error`, why it could not be read, or None."""
        contents = [bytes(content) for content in batch[self._column]]
        images = list(decoded(contents, None, self._bundle.preprocessing))
        found = list(_likeliest(self._bundle, images, self._top))
        others = {name: values for name, values in batch.items() if name != self._column}
        return others | {
            "classes": [[name for name, _ in classes] for classes, _ in found],
            "probabilities": [[probability for _, probability in classes] for classes, _ in found],
            "error": [error for _, error in found],
        }


def decoded(sources, read, preprocessing):
    """For each image a pair of it as the model takes it and None, or of None and its error.

    Args:
        sources: paths, or the images' bytes. read: gives a path's bytes; None where these are given.
    """

    def image(source):
        content = tf.ensure_shape(tf.numpy_function(read, [source], tf.string), ()) if read else source
        return decode.evaluation_image(content, preprocessing)

    keys = tf.constant([os.fsencode(source) for source in sources], tf.string)
    images = iter(tf.data.Dataset.from_tensor_slices(keys).map(image, tf.data.AUTOTUNE))
    for source in sources:
        try:
            pixels = next(images)
        except tf.errors.OpError:
            yield None, reason(lambda source=source: read(source) if read else source)
        else:
            yield pixels.numpy(), None


def _likeliest(bundle, batch, top):
    """Of each pair of an image and None its likeliest classes and None; of None and an error () and the error."""
    pixels = [image for image, error in batch if error is None]
    scores = iter(softmax(bundle.model.predict_on_batch(np.stack(pixels)), axis=1) if pixels else ())
    for _, error in batch:
        if error is not None:
            yield (), error
            continue
        own = next(scores)
        best = np.argsort(-own, kind="stable")[:top]
        yield tuple((class_names.display_name(bundle.classes[i]), float(own[i])) for i in best), None
