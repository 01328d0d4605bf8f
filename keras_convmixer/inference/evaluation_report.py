"""What a model made of a split: exact top-k, loss, calibration, scores by class, confusion matrix, each image."""

import csv
import dataclasses
import io
import os

import numpy as np
from scipy.special import log_softmax, softmax

from keras_convmixer import class_names, files
from keras_convmixer.data.encoded_images import EncodedImages
from keras_convmixer.fonts import font_for
from keras_convmixer.inference.scores import (
    CalibrationBin,
    ClassScores,
    accuracy_interval,
    calibration_bins,
    calibration_error,
    class_scores,
)
from keras_convmixer.reports import Tabular

# Scores of so many classes are shown, of more only so many of the weakest.
MOST_CLASSES = 20
WEAKEST = 5


@dataclasses.dataclass(frozen=True)
class Evaluation(Tabular):
    """What a model made of a split, every image counted once.

    Attributes:
        split: the split's name.
        classes: the model's class names.
        logits: float32 `(images, classes)`. labels: positions in `classes`, `(images,)`.
        skipped: (name, reason) of every image that could not be read.
        source: the data set that the split is of, what `--data` takes; None where it is not known.
        test_time_flip: whether the logits are means over each image and its mirror image.
        trained_on: how many of the images the model has learned from, or None where that is not known.
        names: what each image is called, a path inside the data set or "digits/17"; empty where none is known.
        images: the images themselves, in the same order, to be read again; None where they cannot be.
    """

    split: str
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()
    trained_on: int | None = None
    source: str | None = None
    test_time_flip: bool = False
    names: tuple[str, ...] = ()
    images: EncodedImages | None = None

    def top(self, k: int) -> float:
        """Fraction of images whose class is among the k likeliest. Of equal logits the first class wins.

        A logit that is not a number is wrong: no class is less likely than it.
        """
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)
        before = np.arange(self.logits.shape[1]) < self.labels[:, None]
        rank = np.sum(~(self.logits <= own) | ((self.logits == own) & before), axis=1)
        return float(np.mean(rank < k))

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each image, a position in `classes`, `(images,)`."""
        return self.logits.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each image's likeliest class, float64 `(images,)`."""
        return softmax(self.logits.astype(np.float64), axis=1).max(axis=1)

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % confidence interval of top-1, see `scores.accuracy_interval`."""
        return accuracy_interval(round(self.top(1) * len(self.labels)), len(self.labels))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the likeliest classes' probabilities, see `scores.calibration_error`."""
        return calibration_error(self.probabilities, self.predicted == self.labels)

    def calibration_bins(self) -> list[CalibrationBin]:
        """What the expected calibration error is the mean of, see `scores.calibration_bins`."""
        return calibration_bins(self.probabilities, self.predicted == self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        logs = log_softmax(self.logits.astype(np.float64), axis=1)
        return float(-np.mean(logs[np.arange(len(logs)), self.labels]))

    @property
    def confusion(self) -> np.ndarray:
        """Counts `(true class, predicted class)`."""
        size = len(self.classes)
        pairs = self.labels * size + self.predicted
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def scores(self) -> dict[str, ClassScores]:
        """Class name → its number of images, precision, recall and F1, for the classes that the split has."""
        return {name: found for name, found in zip(self.classes, class_scores(self.confusion)) if found.images}

    def per_class(self) -> dict[str, float]:
        """Class name → top-1 accuracy, for the classes that the split has."""
        return {name: found.recall for name, found in self.scores().items()}

    @property
    def _k(self):
        """The k of the top-k beside top-1: 5, or the most that is not all of them."""
        return max(1, min(5, len(self.classes) - 1))

    def summary(self) -> dict:
        """Plain numbers for metrics.json.

        Of two to five classes every one is among the first five: top5 is 1, and top2, top3 or top4 says more.
        per_class is the recall of by_class.
        """
        images = len(self.labels) + len(self.skipped)
        return {
            **({} if self.source is None else {"data": {"source": self.source, "images": {self.split: images}}}),
            "split": self.split,
            "images": len(self.labels),
            "skipped": len(self.skipped),
            **({} if self.trained_on is None else {"trained_on": self.trained_on}),
            **({"test_time_flip": True} if self.test_time_flip else {}),
            "top1": self.top(1),
            "top1_interval": list(self.interval),
            f"top{self._k}": self.top(self._k),
            "top5": self.top(5),
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "per_class": self.per_class(),
            "by_class": {name: found._asdict() for name, found in self.scores().items()},
        }

    def lines(self) -> list[str]:
        """The figures, and scores by class where some image is mistaken: of all classes, or of many the weakest."""
        lines = [f"{self.split}: {len(self.labels)} images, {len(self.skipped)} skipped"]
        if self.test_time_flip:
            lines += ["each image and its mirror image: the mean of their logits"]
        if self.trained_on:
            lines += [f"the model has learned from {self.trained_on} of them: images new to it come out worse"]
        low, high = self.interval
        lines += [f"top-1 {self.top(1):8.2%}  (95 % interval: {low:.2%} to {high:.2%})"]
        if self._k > 1:
            lines += [f"top-{self._k} {self.top(self._k):8.2%}"]
        lines += [f"loss  {self.loss:8.4f}", f"ECE   {self.calibration_error:8.2%}  (expected calibration error)"]
        return lines + self._class_lines()

    def _class_lines(self):
        ranked = sorted(self.scores().items(), key=lambda item: item[1].recall)
        if ranked[0][1].recall == 1:  # and so is everything else
            return []
        title = "classes, the weakest first:"
        if len(ranked) > MOST_CLASSES:
            title = "weakest classes:"
            ranked = [(name, found) for name, found in ranked[:WEAKEST] if found.recall < 1]
        names = [class_names.display_name(name) for name, _ in ranked]
        width = max(map(len, names))
        lines = [title, f"  {'':{width}}  precision   recall       F1   images"]
        for name, (_, (images, precision, recall, f1)) in zip(names, ranked):
            lines += [f"  {name:{width}}  {precision:9.2%}  {recall:7.2%}  {f1:7.2%}  {images:7}"]
        return lines

    def records(self) -> list[list]:
        """The confusion matrix: a row for each true class, a column for each predicted one."""
        counts = zip(self.classes, self.confusion.tolist())
        return [["true class", *self.classes], *([name, *row] for name, row in counts)]

    def per_image(self) -> list[list]:
        """Column names, then for each image its name or else its position, its class, the likeliest, how likely."""
        paths = self.names or [str(i) for i in range(len(self.labels))]
        true, predicted = ([self.classes[i] for i in some] for some in (self.labels, self.predicted))
        rows = zip(paths, true, predicted, self.probabilities.tolist())
        return [["path", "label", "prediction", "probability"], *map(list, rows)]

    def save_per_image(self, path: str | os.PathLike) -> None:
        """Writes `per_image` as CSV.

        Raises:
            UserError: there is no folder for it, or something else than a file stands there.
            OSError: it cannot be written.
        """
        files.check_place(path)
        text = io.StringIO()
        # All text is quoted: a file's name may hold an end of line, and a class's may look like a number.
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(self.per_image())
        files.write_text(files.expanded(path), text.getvalue())

    def save(self, folder: str | os.PathLike) -> None:
        """Writes metrics.json, confusion_matrix.csv and confusion_matrix.png into a folder."""
        folder = files.expanded(folder)
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
