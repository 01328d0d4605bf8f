"""Averages of trained models, and BatchNorm statistics measured anew."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from keras import ops

from keras_convmixer import bundles, files
from keras_convmixer.data import fingerprints
from keras_convmixer.data.unreadable import stream_in_use
from keras_convmixer.errors import UserError
from keras_convmixer.parts import architecture, parts
from keras_convmixer.progress import Progress
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint
from keras_convmixer.training.sources import RecipeData


@stream_in_use()
def average(
    models: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    data: str | os.PathLike | None = None,
    images: int = 4096,
) -> bundles.Bundle:
    """Averages the weights of models, then measures BatchNorm's statistics for them; of one model, that alone.

    Averaged may be models fine-tuned from the same start (model soups, arXiv 2203.05482) or the checkpoints of one
    training (stochastic weight averaging, arXiv 1803.05407): weights that lie far apart average to nonsense.

    Args:
        models: model folders, or checkpoints of runs (`RUN/checkpoints/*.safetensors`). Of one architecture,
            preprocessing and classes.
        out: the model folder to write, a new one. It gets the first model's recipe.yaml, and says which images any
            of them has learned from.
        data: where the training images of the first model's recipe lie, if no longer where they did.
        images: on how many of them the statistics are measured: as its training saw them, augmented, in its
            batches, a whole number of which is taken. The statistics are the means of those of the batches, as
            PyTorch's `update_bn` takes them. 0: their average over the models instead.

    Returns:
        The `Bundle` in `out`.

    Raises:
        ValueError: `out` holds a model already, the models cannot be averaged, or the first has no recipe to
            measure the statistics with.
        OSError: a file cannot be read or written.
    """
    bundles.check_new(out)
    if not models or images < 0:
        raise UserError("nothing to average: name at least one model, and images 0 or more")
    whole = [_read(Path(files.expanded(model))) for model in models]
    first = whole[0]
    for name, other in zip(models[1:], whole[1:]):
        another = [what for what, value in _kind(other).items() if value != _kind(first)[what]]
        if another:
            raise UserError(f"{name} has another {another[0]} than {models[0]}: they cannot be averaged")
    if len(whole) == 1 and not images:
        raise UserError("one model, and no images to measure BatchNorm's statistics on: nothing is left to do")
    source = _source(first, models[0], data) if images else None
    if source and tuple(source.classes) != tuple(first.classes):
        raise UserError(
            f"{source.recipe.data.source} has other classes than {models[0]}: name the images that it learned from "
            "(--data), or give images 0 (--images 0) to average the statistics too"
        )
    weights = zip(*(bundle.model.get_weights() for bundle in whole))
    first.model.set_weights([np.mean(same, axis=0, dtype=np.float64) for same in weights])
    if source:
        measure_batch_norm(first.model, source, first.preprocessing, images)
    recipe = _recipe_of(first)
    bundles.save(first, out, recipe=recipe and recipe.read_text(encoding="utf-8"))
    known = [fingerprints.read(bundle.path) for bundle in whole]
    if all(part is not None for part in known):
        fingerprints.write(Path(out), np.concatenate(known))
    return dataclasses.replace(first, path=Path(out))


def measure_batch_norm(model, source, preprocessing, images):
    """Sets the moving statistics of a ConvMixer's BatchNorm to the means of those of some training batches.

    Args:
        model: a `ConvMixer`. source: a `RecipeData`. images: of how many images; at least one batch is taken.
    """
    found = parts(model)
    blocks = [mixing.norm for block in found.blocks for mixing in (block.depthwise, block.pointwise)]
    norms = [found.patch_embedding.norm, *blocks]
    momenta = [norm.momentum for norm in norms]
    batch_size = source.recipe.training.batch_size
    steps = min(max(1, round(images / batch_size)), source.steps)
    batches = source.batches(preprocessing, first_epoch=0).take(steps).as_numpy_iterator()
    with Progress("measuring BatchNorm's statistics", steps, unit=" batches") as progress:
        for i, (pixels, *_) in enumerate(batches):
            for norm in norms:
                norm.trainable = True  # a frozen one's statistics do not move
                norm.momentum = i / (i + 1)  # so that what moves is the mean of all batches so far
            model(ops.convert_to_tensor(pixels), training=True)
            progress.update()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def _read(path):
    """The `Bundle` of a model folder, or of a run with the weights of one of its checkpoints."""
    if path.suffix != ".safetensors":
        return bundles.load(path)
    bundle = bundles.load(path.parent.parent)
    arrays, _ = checkpoint.read(path)
    # A clone trains, which draws its dropout from seeds of its own.
    keys = [key for key in sorted(arrays) if key.startswith("model/") and "seed_generator" not in key]
    weights = [arrays[key] for key in keys]
    # The head of a frozen backbone is trained by itself (see `frozen_features`).
    for trained in (bundle.model, bundle.model.get_layer("head")):
        if [weight.shape for weight in weights] == [weight.shape for weight in trained.get_weights()]:
            trained.set_weights(weights)
            return bundle
    raise UserError(f"{path} is not a checkpoint of the model in {bundle.path}")


def _kind(bundle):
    own = {"architecture": architecture(bundle.model)}
    return own | {"preprocessing": bundle.preprocessing, "list of classes": bundle.classes}


def _recipe_of(bundle):
    path = bundle.path / "recipe.yaml" if bundle.path else None
    return path if path and path.is_file() else None


def _source(bundle, name, data):
    recipe = _recipe_of(bundle)
    if recipe is None:
        raise UserError(
            f"{name} has no recipe.yaml, which says how BatchNorm saw its images; give images 0 (--images 0) to "
            "average the statistics too"
        )
    return RecipeData(Recipe.load(recipe, {"data": {"source": str(data)}} if data else ()))
