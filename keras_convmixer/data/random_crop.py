"""The random resized crop: the first of the augmentations, which decodes no more of an image than it shows.

It stands beside the room of the others, not in it: those are keras-cv layers, whose import takes seconds.
"""

import math

import tensorflow as tf

from keras_convmixer.data import decode, exif
from keras_convmixer.data.graph import apart

TRIES = 10


def random_resized_crop(encoded, seed, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="random"):
    """A random part of an image, resized: torchvision's RandomResizedCrop with timm's choice of interpolation.

    The part's area is uniform, its aspect ratio log-uniform. Of ten draws the first that fits into the image is
    taken, else the largest part in the centre whose aspect is allowed. Of a JPEG only that part is decoded.

    Args:
        encoded: scalar tf.string, a file's content.
        seed: int32 `(2,)`. The result is a function of it and the image.
        size: (height, width) of the result.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width over height.
        interpolation: "nearest", "bilinear", "bicubic", or "random" for one of the last two at even odds.

    Returns:
        float32 `(*size, 3)`, whole numbers in 0–255.

    Raises:
        tf.errors.InvalidArgumentError: see `decode.decode`.
    """
    drawn = tf.random.stateless_uniform([2 * TRIES + 3], seed)

    def part_of_jpeg():
        box = _crop_box(decode.jpeg_size(encoded), drawn, scale, ratio)
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3, dct_method="INTEGER_ACCURATE")

    @apart
    def part_of_whole():
        image = decode.decode(encoded)
        top, left, height, width = tf.unstack(_crop_box(tf.shape(image)[:2], drawn, scale, ratio))
        return image[top : top + height, left : left + width]

    is_upright_jpeg = tf.cond(
        decode.is_jpeg(encoded), lambda: exif.orientation(encoded, exif.JPEG_MARKER) == 1, lambda: False
    )
    part = tf.ensure_shape(tf.cond(is_upright_jpeg, part_of_jpeg, part_of_whole), (None, None, 3))

    def resized(by):
        return tf.ensure_shape(decode.resample(part, size, (0, 0), size, by), (*size, 3))

    if interpolation == "random":
        return tf.cond(drawn[-1] < 0.5, lambda: resized("bilinear"), lambda: resized("bicubic"))
    return resized(interpolation)


def _crop_box(size, drawn, scale, ratio):
    """(top, left, height, width) of a random part of an image of this size, from uniform draws in [0, 1)."""
    area_draws, aspect_draws = drawn[:TRIES], drawn[TRIES : 2 * TRIES]
    image = tf.cast(size, tf.float32)
    area = image[0] * image[1] * (scale[0] + (scale[1] - scale[0]) * area_draws)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + (high - low) * aspect_draws)
    tries = tf.cast(tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect], axis=1))), tf.int32)
    fits = tf.reduce_all((tries > 0) & (tries <= size), axis=1)

    def first_that_fits():
        part = tries[tf.argmax(tf.cast(fits, tf.int32))]
        return part, tf.cast(drawn[-3:-1] * tf.cast(size - part + 1, tf.float32), tf.int32)

    @apart
    def largest_in_the_centre():
        allowed = tf.round(tf.stack([image[1] / ratio[0], image[0] * ratio[1]]))
        part = tf.maximum(tf.minimum(size, tf.cast(allowed, tf.int32)), 1)
        return part, (size - part) // 2

    part, corner = tf.cond(tf.reduce_any(fits), first_that_fits, largest_in_the_centre)
    return tf.concat([corner, part], axis=0)
