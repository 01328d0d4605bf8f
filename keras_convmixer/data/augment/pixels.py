"""Operations on pixel values, as Pillow computes them: `(image, argument) → image`.

An image is float32 `(height, width, 3)` whose values are whole numbers in 0–255, and so is the result. Plain
arithmetic takes a tenth of the time of `tf.where` or of a look-up table here (measured on the CPU).
"""

import numpy as np
import tensorflow as tf

# Pillow's luma, in 1/65536: every product and sum stays below 2**24, so float32 is exact. Three equal columns
# give the grey image with its three channels.
_LUMA = np.repeat([[19595.0], [38470.0], [7471.0]], 3, axis=1).astype("float32")


def whole(image):
    """Rounds to whole values in 0–255."""
    return tf.clip_by_value(tf.round(image), 0.0, 255.0)


def identity(image, _=None):
    return image


def autocontrast(image, _=None):
    """Stretches each channel to the full range; one of a single value stays as it is."""
    low, high = _per_channel(tf.reduce_min, image), _per_channel(tf.reduce_max, image)
    flat = tf.cast(low == high, tf.float32)
    scale = 255.0 / (high - low + flat)
    # A fraction is a multiple of 1/span ≥ 1/255: the small addend only undoes float32's rounding below a whole.
    addend = flat * low + 1e-3
    row = tf.ones_like(image[0])
    return tf.floor((image - low * row) * (scale * row) + addend * row)


def equalize(image, _=None):
    """Equalises each channel's histogram; one of a single value stays as it is."""
    channel = np.arange(3, dtype="int32") * 256
    index = tf.cast(image, tf.int32) + np.tile(channel, (image.shape[1], 1))
    histogram = tf.raw_ops.DenseBincount(input=tf.reshape(index, [-1]), size=768, weights=tf.zeros([0], tf.int32))
    # Pillow's step leaves out the last occupied level.
    last = tf.gather(histogram, tf.cast(_per_channel(tf.reduce_max, image), tf.int32) + channel)
    step = (image.shape[0] * image.shape[1] - last) // 255
    below = tf.cumsum(tf.reshape(histogram, [3, 256]), axis=1, exclusive=True)
    table = (below + (step // 2)[:, None]) // tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.minimum(table, 255), np.arange(256, dtype="int32"))
    return tf.gather(tf.cast(tf.reshape(table, [-1]), tf.float32), index)


def invert(image, _=None):
    return 255.0 - image


def posterize(image, bits):
    """Keeps the highest `bits` bits of each value."""
    step = 2.0 ** (8.0 - bits)
    return tf.floor(image / step) * step


def solarize(image, threshold):
    """Inverts the values from `threshold` on."""
    return image + tf.cast(image >= threshold, tf.float32) * (255.0 - 2.0 * image)


def solarize_add(image, addend):
    """Adds to the values below 128."""
    return tf.minimum(image + tf.cast(image < 128.0, tf.float32) * addend, 255.0)


def brightness(image, factor):
    """0 gives black, 1 the image itself, more a brighter one."""
    return _blend(0.0, image, factor)


def contrast(image, factor):
    """0 gives the mean grey, 1 the image itself."""
    mean = tf.floor(tf.reduce_mean(_grey(image)) + 0.5)
    return _blend(mean, image, factor)


def color(image, factor):
    """0 gives the grey image, 1 the image itself."""
    return _blend(_grey(image), image, factor)


def sharpness(image, factor):
    """0 gives the image smoothed by a 3×3 filter, 1 the image itself. The border of one pixel stays."""
    rows = image[:-2] + image[1:-1] + image[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4.0 * image[1:-1, 1:-1]
    inner = _blend(tf.floor(total / 13.0 + 0.5), image[1:-1, 1:-1], factor)
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], 1)
    return tf.concat([image[:1], middle, image[-1:]], 0)


def hue(image, turn):
    """Turns the hue by a fraction of the circle, in Pillow's steps of 1/255 and with its 8-bit saturation."""
    h, s, v = tf.unstack(tf.image.rgb_to_hsv(image / 255.0), axis=-1)
    steps = tf.cast(tf.cast(turn * 255.0, tf.int32), tf.float32)  # towards zero, as Pillow's callers do
    h = tf.math.floormod(tf.floor(h * 255.0) + steps, 256.0) / 255.0
    s = tf.floor(s * 255.0) / 255.0
    return tf.round(tf.image.hsv_to_rgb(tf.stack([h, s, v], axis=-1)) * 255.0)


def _per_channel(reduce, image):
    # Two steps, since reducing two axes at once down to one as short as this is slow; so is broadcasting along it,
    # and the callers spread their three numbers over a row first.
    return reduce(reduce(image, 0), 0)


def _grey(image):
    luma = tf.reshape(tf.matmul(tf.reshape(image, [-1, 3]), _LUMA), tf.shape(image))
    return tf.floor((luma + 32768.0) / 65536.0)


def _blend(start, end, factor):
    """Pillow's blend: from `start` (factor 0) through `end` (factor 1) and beyond, cut to whole values."""
    return tf.floor(tf.clip_by_value(start + factor * (end - start), 0.0, 255.0))
