"""What a model made of a split: exact top-1 and top-5, loss, accuracy by class, confusion matrix."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from keras_convmixer import class_names, files
from keras_convmixer.fonts import font_for
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
        test_time_flip: whether the logits are means over each image and its mirror image.
        trained_on: how many of the images the model has learned from, or None where that is not known.
    """

    split: str
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()
    trained_on: int | None = None
    test_time_flip: bool = False

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
            **({"test_time_flip": True} if self.test_time_flip else {}),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "per_class": {name: float(value) for name, value in self.per_class().items()},
        }

    def lines(self) -> list[str]:
        """The figures, and the weakest classes where some are weak."""
        lines = [f"{self.split}: {len(self.labels)} images, {len(self.skipped)} skipped"]
        if self.test_time_flip:
            lines += ["each image and its mirror image: the mean of their logits"]
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
