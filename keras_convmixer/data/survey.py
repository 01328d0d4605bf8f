"""What is in a data set, what a recipe makes of it, and where the time goes."""

import dataclasses
import time

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from keras_convmixer import class_names, files
from keras_convmixer.data import decode
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.data.unreadable import reasons
from keras_convmixer.errors import UserError
from keras_convmixer.fonts import font_for
from keras_convmixer.progress import Progress
from keras_convmixer.recipes import Augmentation
from keras_convmixer.reports import Report

MOST_LOOKED_AT = 5_000
BATCH = 64
_COLUMNS, _ROWS = 8, 6
_GAP, _CAPTION, _LETTERS, _SMALLEST_TILE = 6, 16, 10, 112
_LEGEND = "#n: class n of data.json"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        counts: class name → images, unreadable ones left out where they are known before they are looked at.
        looked_at: how many images were decoded, evenly spread over the split.
        sizes: (height, width) in pixels: of each image looked at, `(n, 2)`.
        unreadable: (name, reason) of each image that cannot be read.
    """

    counts: dict[str, int]
    looked_at: int
    sizes: np.ndarray
    unreadable: tuple[tuple[str, str], ...]

    def summary(self):
        smallest, median, largest = _three_sizes(self.sizes)
        return {
            "images": sum(self.counts.values()),
            "classes": self.counts,
            "looked_at": self.looked_at,
            "sizes": {"smallest": smallest, "median": median, "largest": largest},
            "unreadable": [{"name": name, "reason": why} for name, why in self.unreadable],
        }


@dataclasses.dataclass(frozen=True)
class Survey(Report):
    """A data set's splits by name, and images/s of each stage of the training input and of the whole (`stages`).

    Where the input was not timed, there are no stages.
    """

    name: str
    splits: dict[str, Split]
    stages: dict[str, float | None]

    def summary(self):
        splits = {name: split.summary() for name, split in self.splits.items()}
        return {"name": self.name, "splits": splits, "images_per_second": self.stages}

    def lines(self, most=12):
        """The figures; of more classes than `most` the largest and the smallest."""
        lines = [self.name]
        for name, split in self.splits.items():
            lines += ["", f"{name}: {sum(split.counts.values()):,} images in {len(split.counts):,} classes"]
            ranked = sorted(split.counts.items(), key=lambda item: -item[1])
            shown = ranked if len(ranked) <= most else [*ranked[: most // 2], ("...", None), *ranked[-most // 2 :]]
            names = [label if count is None else class_names.display_name(label) for label, count in shown]
            width = max(map(len, names))
            lines += [f"  {n:<{width}}  {'' if c is None else format(c, ',')}" for n, (_, c) in zip(names, shown)]
            smallest, median, largest = (f"{height}×{width}" for height, width in _three_sizes(split.sizes))
            of = f" ({split.looked_at:,} looked at)" if split.looked_at < sum(split.counts.values()) else ""
            lines.append(f"  height × width: smallest {smallest}, median {median}, largest {largest}{of}")
            lines.append(f"  unreadable: {len(split.unreadable)}")
            lines += [f"    {name}: {why}" for name, why in split.unreadable]
        lines += ["", "training input:"] if self.stages else []
        for stage, rate in self.stages.items():
            lines.append(f"  {stage:<13}{'too fast to tell' if rate is None else f'{rate:>10,.0f} images/s'}")
        return lines


def survey(dataset, preprocessing, recipe, most=MOST_LOOKED_AT, timing=True):
    """Looks at a `Dataset`, and times the training input that a recipe makes of it.

    Args:
        dataset: an open `Dataset`. preprocessing: the model's `Preprocessing`. recipe: a `recipe.Augmentation`.
        most: of a larger split so many images are decoded for their size, evenly spread.
        timing: whether to time it, which takes most of the time; else there are no `stages`.

    Raises:
        ValueError: a split has no image that can be read.
    """
    splits = {name: _split(name, dataset.split(name), most) for name in dataset.splits if name != "all"}
    return Survey(dataset.name, splits, stages(dataset.training(), preprocessing, recipe) if timing else {})


def _split(name, images, most):
    positions = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(np.int64))

    def size(position):
        return position, tf.shape(decode.decode(images.encoded(position)))[:2]

    looked = tf.data.Dataset.from_tensor_slices(positions).map(size, tf.data.AUTOTUNE).ignore_errors()
    read, sizes = [], []
    with Progress(f"looking at {name}", len(positions)) as progress:
        for some, theirs in looked.batch(BATCH).as_numpy_iterator():
            read.extend(some.tolist())
            sizes.append(theirs)
            progress.update(len(some))
    if not read:
        raise UserError(f"none of the {len(images)} images of the split {name!r} can be read")
    counts = np.bincount(images.labels, minlength=len(images.classes))
    unreadable = images.skipped + reasons(images, set(positions.tolist()) - set(read))
    named = dict(zip(images.classes, counts.tolist()))
    return Split(named, len(positions), np.concatenate(sizes), unreadable)


def _three_sizes(sizes):
    """The (height, width) of the image of least, middle and greatest area."""
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    return [sizes[i].tolist() for i in (order[0], order[len(order) // 2], order[-1])]


def stages(images, preprocessing, recipe, seconds=1.0, rounds=3):
    """Images/s of each stage of the training input, were it the only one, and of all together.

    The input is timed up to each stage, in rounds that take turns; a stage takes what its median adds to the one
    before.

    Returns:
        A dictionary: "read", "decode, crop", "augment" and "mix", those there are, and "all". None stands for a
        stage that adds nothing that could be measured.
    """
    recipe = dataclasses.replace(recipe, mix_group=None)
    alone = dataclasses.replace(recipe, mixup=0.0, cutmix=0.0)
    of_crop = ("crop_scale", "crop_ratio", "crop_interpolation")
    crop = Augmentation(**{name: getattr(recipe, name) for name in of_crop})
    streams = {"read": _bytes(images), "decode, crop": _batches(images, preprocessing, crop)}
    if alone != crop:
        streams["augment"] = _batches(images, preprocessing, alone)
    if recipe != alone:
        streams["mix"] = _batches(images, preprocessing, recipe)
    streams = {stage: iter(stream) for stage, stream in streams.items()}
    times = np.zeros((rounds, len(streams)))
    with Progress("timing the training input", times.size) as progress:
        for place in np.ndindex(times.shape):
            stage = list(streams)[place[1]]
            progress.doing(f"timing the training input: {stage}")
            times[place] = _seconds_an_image(streams[stage], seconds)
            progress.update()
    rates, before = {}, 0.0
    for stage, spent in zip(streams, np.median(times, axis=0).tolist()):
        rates[stage] = 1 / (spent - before) if spent > before else None
        before = max(before, spent)
    return rates | {"all": 1 / before}


def _bytes(images):
    positions = tf.data.Dataset.range(len(images)).repeat()
    lengths = positions.map(lambda i: tf.strings.length(images.encoded(i)), tf.data.AUTOTUNE).ignore_errors()
    return lengths.batch(BATCH).prefetch(2)


def _batches(images, preprocessing, recipe, **arguments):
    arguments = {"batch_size": min(BATCH, len(images)), "seed": 0, "epochs": 2**31} | arguments
    return training_batches(images, preprocessing, recipe, **arguments)


def _seconds_an_image(batches, seconds):
    count = 0
    for _ in range(8):  # those that lie in queues, and those made while the other streams fill theirs
        next(batches)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        count += len(batch[0] if isinstance(batch, tuple) else batch)
    return (time.perf_counter() - start) / count


def write_contact_sheet(path, images, preprocessing, recipe, seed=0):
    """Draws the first training images of a split as the model will see them, each over its classes.

    A class whose name no font here can write is given by its number, which a line at the bottom explains.

    Args:
        path: of the PNG. images: the training split. preprocessing: the model's. recipe: a `recipe.Augmentation`.
        seed: the recipe's.
    """
    recipe = dataclasses.replace(recipe, mix_group=None)
    pixels, labels = next(iter(_batches(images, preprocessing, recipe, seed=seed, epochs=1)))
    height, width = preprocessing.input_size
    zoom = max(1, -(-_SMALLEST_TILE // min(height, width)))
    step_x, step_y = zoom * width + _GAP, zoom * height + _GAP + _CAPTION
    count = min(_COLUMNS * _ROWS, len(pixels))
    columns, rows = min(_COLUMNS, count), -(-count // _COLUMNS)
    captions = [_caption(label, images.classes) for label in labels.numpy()[:count]]
    legend = _LEGEND if any("#" in caption for caption in captions) else ""
    size = (columns * step_x + _GAP, rows * step_y + _GAP + (_CAPTION if legend else 0))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    # What erasing fills in may lie outside 0–255.
    whole = np.clip(pixels[:count], 0, 255).round().astype(np.uint8)
    for i, (image, caption) in enumerate(zip(whole, captions)):
        left, top = _GAP + i % columns * step_x, _GAP + i // columns * step_y
        tile = Image.fromarray(image).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        _write(draw, (left, top + zoom * height + 2), caption, step_x - _GAP)
    _write(draw, (_GAP, rows * step_y), legend, size[0] - _GAP)
    with files.replacing(path) as temporary:
        sheet.save(temporary)


def _caption(label, names):
    """The classes that make up more than a hundredth of a soft label, with their shares where there are two."""
    found = [i for i in np.argsort(-label, kind="stable")[:2] if label[i] > 0.01]
    words = [class_names.display_name(names[i]).partition(",")[0] for i in found]
    if font_for("".join(words)) is None:
        words = [f"#{i + 1}" for i in found]
    if len(found) == 1:
        return words[0]
    return " + ".join(f"{label[i]:.0%} {word}" for i, word in zip(found, words))


def _write(draw, place, text, width):
    """Writes as much of a text as fits into a width."""
    font, kept = ImageFont.truetype(font_for(text), _LETTERS), text
    while draw.textlength(kept, font) > width:
        kept = kept.removesuffix("...")[:-1] + "..."
    draw.text(place, kept, "black", font)
