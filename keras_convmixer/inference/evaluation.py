"""How good a model is, on images that it has not learned from wherever that can be told."""

import dataclasses
import os
from collections.abc import Sequence

import keras
import numpy as np

from keras_convmixer import bundles, files
from keras_convmixer.data import datasets, fingerprints
from keras_convmixer.data.unreadable import check_share
from keras_convmixer.errors import UserError
from keras_convmixer.exported.loaded import ExportedBundle, load
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.inference.meter import Meter, WithMirrorImages
from keras_convmixer.recipes import Recipe


def evaluate(
    model: bundles.Bundle | ExportedBundle | keras.Model | str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    split: str | None = None,
    batch_size: int = 64,
    test_time_flip: bool = False,
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
        test_time_flip: measure the mean of the logits of each image and of its mirror image.
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
        split, images, seen = _new_to(known, dataset, is_own(bundle, data))
    else:
        images = dataset.split(split)
        seen = _seen(images, known)
    model = WithMirrorImages(bundle.model) if test_time_flip else bundle.model
    meter = Meter(images, split, bundle.preprocessing, batch_size)
    evaluation = meter.measure(model, bundle.classes, verbose=verbose)
    source = str(data or recipe.data.source)
    evaluation = dataclasses.replace(evaluation, source=source, test_time_flip=test_time_flip)
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


def is_own(bundle, data):
    """Whether the data that a model is to be measured on is what it was trained on, as its recipe names it."""
    recipe = _recipe(bundle)
    if data is None or recipe is None or recipe.data.source is None:
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


def _recipe(bundle):
    path = bundle.path / "recipe.yaml" if bundle.path else None
    return Recipe.load(path) if path and path.exists() else None
