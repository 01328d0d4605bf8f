"""Pasting a rectangle into an image, which random erasing and CutMix share."""

import tensorflow as tf


def paste(image, patch, top, left):
    """Replaces a rectangle of an image, or the same one in a batch of images.

    Args:
        image: `(..., height, width, channels)`. patch: the same with a height and width of its own, which may be 0.
        top, left: integer scalars, where the patch begins. It must lie inside the image.
    """
    bottom, right = top + tf.shape(patch)[-3], left + tf.shape(patch)[-2]
    rows = tf.concat([image[..., top:bottom, :left, :], patch, image[..., top:bottom, right:, :]], -2)
    return tf.concat([image[..., :top, :, :], rows, image[..., bottom:, :, :]], -3)
