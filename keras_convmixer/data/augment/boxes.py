"""Pasting a rectangle into an image, which random erasing and CutMix share."""

import tensorflow as tf


def paste(image, patch, top, left):
    """Replaces a rectangle of an image.

    Args:
        image: `(height, width, channels)`. patch: the same with a height and width of its own, which may be 0.
        top, left: integer scalars, where the patch begins. It must lie inside the image.
    """
    bottom, right = top + tf.shape(patch)[0], left + tf.shape(patch)[1]
    rows = tf.concat([image[top:bottom, :left], patch, image[top:bottom, right:]], 1)
    return tf.concat([image[:top], rows, image[bottom:]], 0)
