"""The random resized crop: the first of the augmentations, which decodes no more of an image than it shows.

It stands beside the room of the others, not in it: those are keras-cv layers, whose import takes seconds.
"""

import math

import tensorflow as tf

from keras_convmixer.data import decode
from keras_convmixer.data.graph import apart
from keras_convmixer.data.jpeg_part import jpeg_part

TRIES = 10


def random_resized_crop(
    encoded,
    seed,
    size,
    scale=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    interpolation="random",
    scaled_decoding=False,
):
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
        scaled_decoding: decode a part of a JPEG smaller where both its sides are at least four times the result's.
            Not with "nearest".

    Returns:
        float32 `(*size, 3)`, whole numbers in 0–255.

    Raises:
        tf.errors.InvalidArgumentError: see `decode.decode`.
    """
    drawn = tf.random.stateless_uniform([2 * TRIES + 3], seed)

    def choose_box(image_size):
        return _crop_box(image_size, drawn, scale, ratio)

    def part_of_jpeg():
        return jpeg_part(encoded, choose_box, size if scaled_decoding else None)

    @apart
    def part_of_whole():
        image = decode.decode(encoded)
        box = choose_box(tf.shape(image)[:2])
        top, left, height, width = tf.unstack(box)
        return image[top : top + height, left : left + width], box, tf.cast(box, tf.float32)

    pixels, box, window = tf.cond(decode.is_jpeg(encoded), part_of_jpeg, part_of_whole)
    pixels = tf.ensure_shape(pixels, (None, None, 3))
    window_size, offset = size, (0, 0)
    if scaled_decoding:
        box = tf.cast(box, tf.float32)
        zoom = size / box[2:]
        window_size, offset = window[2:] * zoom, (box[:2] - window[:2]) * zoom

    def resized(by):
        return tf.ensure_shape(decode.resample(pixels, window_size, offset, size, by), (*size, 3))

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
