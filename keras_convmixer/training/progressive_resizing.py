"""Training that begins with smaller images, which cost less (progressive resizing).

A ConvMixer's layers take images of any size: at half the side an epoch is a quarter of the work.
"""

import dataclasses
from typing import NamedTuple

from keras_convmixer.errors import UserError
from keras_convmixer.parts import architecture


class Piece(NamedTuple):
    """A part of a training that is one `fit`: its first epoch and first step there, its end, its images' size."""

    epoch: int
    step: int
    end: int
    input_size: tuple[int, int]


def pieces(training, input_size, start):
    """What remains of a training, piece by piece.

    Args:
        training: the recipe's. input_size: the model's. start: the `checkpoint.Position` that it goes on from.
    """
    found, begin = [], 0
    for side, epochs in (*training.progressive_resizing, (None, training.epochs)):
        end = min(begin + epochs, training.epochs)
        size = input_size if side is None else (side, side)
        epoch = max(begin, start.epoch)
        if start.step and start.epoch == epoch < end:  # an epoch that was begun before is a piece of its own
            found.append(Piece(epoch, start.step, epoch + 1, size))
            epoch += 1
        if epoch < end:
            found.append(Piece(epoch, 0, end, size))
        begin = end
    return found


def pixels(training, input_size):
    """How many pixels an image of each epoch has, which an epoch's time is about in proportion to."""
    sides = [side for side, epochs in training.progressive_resizing for _ in range(epochs)]
    own = input_size[0] * input_size[1]
    return ([side**2 for side in sides] + [own] * training.epochs)[: training.epochs]


def check(training, bundle, resizes):
    """Raises UserError where a recipe's sizes do not suit its model, or its images do not come in any size."""
    sizes, largest = training.progressive_resizing, min(bundle.preprocessing.input_size)
    patch_size = architecture(bundle.model)["patch_size"]
    if sizes and not resizes:
        raise UserError(
            "training.progressive_resizing is for the recipe's own data, and not for cached features: leave it out"
        )
    for side, _ in sizes:
        if not patch_size <= side <= largest:
            raise UserError(
                f"training.progressive_resizing: {side} must be from {patch_size}, the size of a patch, to "
                f"{largest}, that of the model's images"
            )
    if sizes and sum(epochs for _, epochs in sizes) >= training.epochs:
        raise UserError(
            f"training.progressive_resizing must leave some of the {training.epochs} epochs for images of the "
            "model's own size"
        )


def resized(preprocessing, piece):
    """The `Preprocessing` of a piece's images."""
    return dataclasses.replace(preprocessing, input_size=piece.input_size)
