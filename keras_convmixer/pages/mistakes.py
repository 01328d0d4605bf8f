"""The mistakes that a model is most sure of, with their pictures."""

import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_convmixer.class_names import display_name
from keras_convmixer.data import decode
from keras_convmixer.data.unreadable import reasons
from keras_convmixer.pages.html import picture, section, tag

MOST = 24
# Of a side of a picture, in pixels.
_LARGEST = 160


def mistakes(evaluation, preprocessing):
    """The part of a page about them: of each its picture as the model sees it, both classes and the probability.

    Args:
        evaluation: an `Evaluation`. Where it has no images there are no pictures. preprocessing: of the model.
    """
    predicted, probabilities = evaluation.predicted, evaluation.probabilities
    wrong = np.flatnonzero(predicted != evaluation.labels)
    if not len(wrong):
        return section("The surest mistakes", tag("p", "No image was taken for another class."))
    words = f"{len(wrong):,} of {len(evaluation.labels):,} images taken for another class"
    words += f"; the {MOST} that the model is surest of." if len(wrong) > MOST else "."
    if evaluation.images is None:
        words += " Their pictures are not at hand."
    tiles = []
    for i in wrong[np.argsort(-probabilities[wrong], kind="stable")[:MOST]].tolist():
        true, taken = (display_name(evaluation.classes[k]) for k in (evaluation.labels[i], predicted[i]))
        name = evaluation.names[i] if evaluation.names else f"image {i}"
        caption = tag("figcaption", f"{true} → {taken}", tag("small", f"{probabilities[i]:.1%} sure; {name}"))
        alt = f"{true}, taken for {taken}"
        shown = _picture(evaluation.images, preprocessing, i, alt) if evaluation.images is not None else None
        tiles.append(tag("li", tag("figure", shown, caption)))
    return section("The surest mistakes", tag("p", words), tag("ul", tiles, class_="mistakes"))


def _picture(images, preprocessing, i, alt):
    """The image at a position as the model sees it, or words that say why it cannot be read."""
    try:
        pixels = decode.evaluation_image(images.encoded(tf.constant(i, tf.int64)), preprocessing)
    except tf.errors.OpError:  # it could be when the model was measured
        ((name, why),) = reasons(images, [i])
        warnings.warn(f"{name} cannot be read, and the report has no picture of it: {why}", stacklevel=2)
        return tag("div", f"cannot be read: {why}", class_="gone")
    image = Image.fromarray(pixels.numpy().astype(np.uint8))
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return picture(image, alt, class_="small" if max(image.size) < _LARGEST // 2 else None)
