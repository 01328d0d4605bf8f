"""How good a model is: exact top-1 and top-5, loss, accuracy by class, confusion matrix."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.special import log_softmax

from keras_convmixer import bundles, class_names, files
from keras_convmixer.data import datasets, fingerprints
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.unreadable import check_share, reasons, stream_in_use
from keras_convmixer.errors import UserError
from keras_convmixer.exported.loaded import ExportedBundle, load
from keras_convmixer.fonts import font_for
from keras_convmixer.recipes import Recipe
from keras_convmixer.reports import Tabular

# so many classes are named as the weakest
WEAKEST = 5


@dataclasses.dataclass(frozen=True)
class Evaluation(Tabular):
    """What a model made of a split, every image counted once.

    Attributes:
        split: the split's name.
        classes: the model's class names.
        logits: float32 `(images, classes)`. labels: positions in `classes`, `(images,)`.
        skipped: (name, reason) of every image that could not be read.
        trained_on: how many of the images the model has learned from, or None where that is not known.
    """

    split: str
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()
    trained_on: int | None = None

    def top(self, k: int) -> float:
        """Fraction of images whose class is among the k likeliest. Of equal logits the first class wins."""
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)
        before = np.arange(self.logits.shape[1]) < self.labels[:, None]
        rank = np.sum((self.logits > own) | ((self.logits == own) & before), axis=1)
        return float(np.mean(rank < k))

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        logs = log_softmax(self.logits.astype(np.float64), axis=1)
        return float(-np.mean(logs[np.arange(len(logs)), self.labels]))

    @property
    def confusion(self) -> np.ndarray:
        """Counts `(true class, predicted class)`."""
        size = len(self.classes)
        pairs = self.labels * size + self.logits.argmax(axis=1)
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def per_class(self) -> dict[str, float]:
        """Class name → top-1 accuracy, for the classes that the split has."""
        confusion = self.confusion
        counts = confusion.sum(axis=1)
        return {name: confusion[i, i] / counts[i] for i, name in enumerate(self.classes) if counts[i]}

    def summary(self) -> dict:
        """Plain numbers for metrics.json. top5 is that of all classes where there are fewer than five."""
        return {
            "split": self.split,
            "images": len(self.labels),
            "skipped": len(self.skipped),
            **({} if self.trained_on is None else {"trained_on": self.trained_on}),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "per_class": {name: float(value) for name, value in self.per_class().items()},
        }

    def lines(self) -> list[str]:
        """The figures, and the weakest classes where some are weak."""
        lines = [f"{self.split}: {len(self.labels)} images, {len(self.skipped)} skipped"]
        if self.trained_on:
            lines += [f"the model has learned from {self.trained_on} of them: images new to it come out worse"]
        # Of five classes or fewer, every one is among the first five.
        lines += [f"top-{k} {self.top(k):8.2%}" for k in (1, 5) if k < max(len(self.classes), 2)]
        lines += [f"loss  {self.loss:8.4f}"]
        ranked = sorted(self.per_class().items(), key=lambda item: item[1])[:WEAKEST]
        weak = {class_names.display_name(name): value for name, value in ranked if value < 1}
        if weak:
            width = max(map(len, weak))
            lines += ["weakest classes:", *(f"  {name:<{width}}  {value:7.2%}" for name, value in weak.items())]
        return lines

    def records(self) -> list[list]:
        """The confusion matrix: a row for each true class, a column for each predicted one."""
        counts = zip(self.classes, self.confusion.tolist())
        return [["true class", *self.classes], *([name, *row] for name, row in counts)]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes metrics.json, confusion_matrix.csv and confusion_matrix.png into a folder."""
        folder = Path(folder)
        files.write_text(folder / "metrics.json", self.as_json() + "\n")
        files.write_text(folder / "confusion_matrix.csv", self.as_csv())
        with files.replacing(folder / "confusion_matrix.png") as temporary:
            _draw(self.confusion, [class_names.display_name(name) for name in self.classes], temporary)


def evaluate(
    model: bundles.Bundle | ExportedBundle | keras.Model | str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    split: str | None = None,
    batch_size: int = 64,
    allow_corrupt: bool = False,
    verbose: int | str = "auto",
) -> Evaluation:
    """Measures a model on a split of a data set.

    Args:
        model, classes: what `load` takes: a folder, a name, a `keras.Model` with class names, an exported file...
        data: what `--data` takes. Default: the data the model was trained on, by its recipe.yaml.
        split: "train", "validation", "test", or "all" for data that has no splits of its own. Default: the
            held-out one; of data without splits, those images that the model has not learned from. They are known
            by their content, wherever they lie. Where it has learned from all of them, all.
        batch_size: images at a time. It changes no figure.
        allow_corrupt: whether more than 1 % of the images may be unreadable.
        verbose: as Keras's `predict`.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: the data has a class that the model lacks, no such split, or too many unreadable images.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    bundle = load(model, classes)
    recipe = _recipe(bundle)
    dataset = open_data(bundle, data, allow_corrupt=allow_corrupt)
    known = fingerprints.read(bundle.path)
    if split is None:
        split, images, seen = _new_to(known, dataset, _is_own(data, recipe))
    else:
        images = dataset.split(split)
        seen = _seen(images, known)
    evaluation = measure(bundle, images, split, batch_size=batch_size, verbose=verbose)
    if known is not None:
        evaluation = dataclasses.replace(evaluation, trained_on=int(seen.sum()))
    allow_corrupt = allow_corrupt or bool(recipe and recipe.data.allow_corrupt)
    count = len(images) + len(images.skipped)
    check_share(f"{dataset.name} ({split})", dict(evaluation.skipped), count, allow_corrupt)
    return evaluation


def _new_to(known, dataset, is_own):
    """The split that a model is judged by when none is asked for: its name, its images, which of them are known.

    Args:
        known: fingerprints of what it has learned from, or None.
        dataset: the `Dataset`. is_own: whether it is the one that the model's recipe names.
    """
    if "all" not in dataset.splits:
        return dataset.held_out_name, dataset.held_out(), _seen(dataset.held_out(), known)
    images = dataset.split("all")
    seen = _seen(images, known)
    if is_own and not seen.any():  # nothing was noted in its training, or the data makes its files anew
        held_out = dataset.held_out()
        return dataset.held_out_name, held_out, np.zeros(len(held_out), bool)
    if seen.all() or not seen.any():
        return "all", images, seen
    new = images.subset(np.flatnonzero(~seen))
    return "validation", dataclasses.replace(new, skipped=images.skipped), np.zeros(len(new), bool)


def _seen(images, known):
    """Which of some images a model has learned from, bool `(n,)`."""
    return np.zeros(len(images), bool) if known is None else np.isin(fingerprints.fingerprints(images), known)


def _is_own(data, recipe):
    if data is None or recipe is None:
        return data is None
    return files.expanded(data).resolve() == files.expanded(recipe.data.source).resolve()


def open_data(bundle, data=None, *, allow_corrupt=False):
    """The data set `data`, or the one a model folder was trained on, split as it was then."""
    recipe = _recipe(bundle)
    if recipe is None and data is None:
        raise UserError("this model has no recipe.yaml that names its data; give --data")
    if recipe is None:
        return datasets.open_dataset(data, allow_corrupt=allow_corrupt)
    return datasets.open_dataset(
        data or recipe.data.source,
        validation_fraction=recipe.data.validation_fraction,
        seed=recipe.seed,
        allow_corrupt=allow_corrupt or recipe.data.allow_corrupt,
    )


def measure(bundle, images, split, *, batch_size=64, verbose=0):
    """Measures a `Bundle` once, as `Meter` does."""
    return Meter(images, split, bundle.preprocessing, batch_size).measure(
        bundle.model, bundle.classes, verbose=verbose
    )


class Meter:
    """Measures models on the open `Images` of a split, which it reads anew each time.

    Args:
        images: the split. split: its name. preprocessing: of the models.
        batch_size: images at a time. It changes no figure.
        fill: make the last batch as large as the others, for replicas to share out. What fills it is not counted.

    Attributes:
        unread: positions of the images that could not be read the last time.
    """

    def __init__(self, images, split, preprocessing, batch_size=64, fill=False):
        self.images = images
        self.split = split
        self.unread = []
        self._read = set()
        self._batches = evaluation_batches(images, preprocessing, batch_size).map(self._alone)
        if fill:
            self._batches = self._batches.map(lambda batch: _filled(batch, batch_size))

    def _alone(self, pixels, indices):
        """The pixels, for Keras's `predict` keeps nothing else; of the indices a note is taken as they pass."""
        with tf.control_dependencies([tf.numpy_function(lambda i: self._read.update(i.tolist()), [indices], [])]):
            return tf.identity(pixels)

    @stream_in_use()
    def measure(self, model, classes, *, verbose=0):
        """Measures a model that gives logits of these classes. What cannot be read is listed in `skipped`.

        Raises:
            ValueError: the split has a class that the model lacks, or none of its images can be read.
        """
        positions = np.asarray(class_names.match(self.images.classes, classes))
        # Looked at before the first reading alone: it costs a start of the stream.
        if not self._read and next(iter(self._batches), None) is None:
            raise UserError(f"none of the {len(self.images)} images of the split {self.split!r} can be read")
        self._read.clear()
        logits = model.predict(self._batches, verbose=verbose)[: len(self._read)]
        self.unread = sorted(set(range(len(self.images))) - self._read)
        skipped = self.images.skipped + reasons(self.images, self.unread)
        labels = positions[self.images.labels[sorted(self._read)]]
        return Evaluation(self.split, classes, logits, labels, skipped)


def _filled(batch, size):
    return tf.pad(batch, [[0, size - tf.shape(batch)[0]], [0, 0], [0, 0], [0, 0]])


def _recipe(bundle):
    path = bundle.path / "recipe.yaml" if bundle.path else None
    return Recipe.load(path) if path and path.exists() else None


def _draw(confusion, names, path):
    """Draws a confusion matrix. A name that no font here can write becomes its number, which a line explains."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    size = min(4 + 0.3 * len(names), 24)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 60:
        fonts = [font_for(name) for name in names]
        shown = [name if font else f"#{i}" for i, (name, font) in enumerate(zip(names, fonts), 1)]
        axes.set_xticks(range(len(names)), shown, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), shown, parse_math=False)
        for label, font in zip([*axes.get_xticklabels(), *axes.get_yticklabels()], fonts * 2):
            label.set_fontproperties(FontProperties(fname=font, size=label.get_size()))
        if None in fonts:
            axes.set_xlabel("predicted (#n: row n of confusion_matrix.csv)")
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                dark = count > confusion[row].sum() / 2
                axes.text(column, row, count, ha="center", va="center", color="white" if dark else "black")
    figure.savefig(path, dpi=120)
