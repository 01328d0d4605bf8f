"""How good a model is: exact top-1 and top-5, loss, accuracy by class, confusion matrix."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from keras_convmixer import bundles, class_names, files
from keras_convmixer.data import datasets, pipeline, unreadable, verify
from keras_convmixer.errors import UserError
from keras_convmixer.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model made of a split, every image counted once.

    Attributes:
        split: the split's name.
        classes: the model's class names.
        logits: float32 `(images, classes)`. labels: positions in `classes`, `(images,)`.
        skipped: (name, reason) of every image that could not be read.
    """

    split: str
    classes: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()

    def top(self, k):
        """Fraction of images whose class is among the k likeliest. Of equal logits the first class wins."""
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)
        before = np.arange(self.logits.shape[1]) < self.labels[:, None]
        rank = np.sum((self.logits > own) | ((self.logits == own) & before), axis=1)
        return float(np.mean(rank < k))

    @property
    def loss(self):
        """Mean cross-entropy in nats."""
        logits = self.logits.astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        return float(np.mean(log_sums - shifted[np.arange(len(shifted)), self.labels]))

    @property
    def confusion(self):
        """Counts `(true class, predicted class)`."""
        size = len(self.classes)
        pairs = self.labels * size + self.logits.argmax(axis=1)
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def per_class(self):
        """Class name → top-1 accuracy, for the classes that the split has."""
        confusion = self.confusion
        counts = confusion.sum(axis=1)
        return {name: confusion[i, i] / counts[i] for i, name in enumerate(self.classes) if counts[i]}

    def summary(self):
        """Plain numbers for metrics.json. top5 is that of all classes where there are fewer than five."""
        return {
            "split": self.split,
            "images": len(self.labels),
            "skipped": len(self.skipped),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "per_class": {name: float(value) for name, value in self.per_class().items()},
        }

    def table(self, worst=5):
        """The figures as lines of text, with the `worst` classes."""
        lines = [
            f"{self.split}: {len(self.labels)} images, {len(self.skipped)} skipped",
            f"top-1 {self.top(1):8.2%}",
            f"top-5 {self.top(5):8.2%}",
            f"loss  {self.loss:8.4f}",
        ]
        ranked = sorted(self.per_class().items(), key=lambda item: item[1])[:worst]
        names = [class_names.display_name(name) for name, _ in ranked]
        width = max(map(len, names))
        lines += ["weakest classes:"]
        lines += [f"  {name:<{width}}  {value:7.2%}" for name, (_, value) in zip(names, ranked)]
        return "\n".join(lines)

    def save(self, folder):
        """Writes metrics.json, confusion_matrix.csv and confusion_matrix.png into a folder."""
        folder = Path(folder)
        files.write_text(folder / "metrics.json", json.dumps(self.summary(), indent=2) + "\n")
        header = ",".join(["true class", *(_quoted(name) for name in self.classes)])
        rows = [",".join([_quoted(n), *map(str, row)]) for n, row in zip(self.classes, self.confusion)]
        files.write_text(folder / "confusion_matrix.csv", "\n".join([header, *rows]) + "\n")
        with files.replacing(folder / "confusion_matrix.png") as temporary:
            _draw(self.confusion, [class_names.display_name(name) for name in self.classes], temporary)


def evaluate(model, data=None, *, classes=None, split=None, batch_size=64, allow_corrupt=False, verbose="auto"):
    """Measures a model on a split of a data set.

    Args:
        model, classes: as of `load`.
        data: what `--data` takes. Default: the data the model was trained on, by its recipe.yaml, with the
            same images held out.
        split: "train", "validation", "test", or "all" for data that has no splits of its own. Default: the
            held-out one; of data that has no splits, and is not what the model was trained on, all of it.
        batch_size: images at a time. It changes no figure.
        allow_corrupt: whether more than 1 % of the images may be unreadable.
        verbose: as Keras's `predict`.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: the data has a class that the model lacks, no such split, or too many unreadable images.
    """
    bundle = bundles.load(model, classes)
    recipe = _recipe(bundle)
    dataset = open_data(bundle, data, allow_corrupt=allow_corrupt)
    if split is None:
        foreign = data is not None and (recipe is None or data != recipe.data.source)
        split = "all" if foreign and "all" in dataset.splits else dataset.held_out_name
    images = dataset.split(split)
    evaluation = measure(bundle, images, split, batch_size=batch_size, verbose=verbose)
    allow_corrupt = allow_corrupt or bool(recipe and recipe.data.allow_corrupt)
    count = len(images) + len(images.skipped)
    verify.check_share(f"{dataset.name} ({split})", dict(evaluation.skipped), count, allow_corrupt)
    return evaluation


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


@pipeline.in_use()
def measure(bundle, images, split, *, batch_size=64, verbose=0):
    """Measures a `Bundle` on the open `Images` of a split. What cannot be read is listed in `skipped`.

    Raises:
        ValueError: the split has a class that the model lacks, or none of its images can be read.
    """
    positions = np.asarray(class_names.match(images.classes, bundle.classes))
    read = set()
    batches = pipeline.evaluation_batches(images, bundle.preprocessing, batch_size, read=read)
    if next(iter(batches), None) is None:
        raise UserError(f"none of the {len(images)} images of the split {split!r} can be read")
    logits = bundle.model.predict(batches, verbose=verbose)
    skipped = images.skipped + unreadable.reasons(images, set(range(len(images))) - read)
    return Evaluation(split, bundle.classes, logits, positions[images.labels[sorted(read)]], skipped)


def _recipe(bundle):
    path = bundle.path / "recipe.yaml" if bundle.path else None
    return Recipe.load(path) if path and path.exists() else None


def _quoted(name):
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name


def _draw(confusion, names, path):
    from matplotlib.figure import Figure

    size = min(4 + 0.3 * len(names), 24)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                dark = count > confusion[row].sum() / 2
                axes.text(column, row, count, ha="center", va="center", color="white" if dark else "black")
    figure.savefig(path, dpi=120)
