"""Operations that move pixels, as Pillow computes them: an affine map, sampled without antialiasing.

An image is float32 `(height, width, 3)` of whole values in 0–255 and so is the result. A point that falls
outside the image gets the fill colour; one inside it but within half a pixel of the border sees the border
repeated. `interpolation` is "nearest", "bilinear" or "bicubic" (the kernel with
a = -1, as Pillow's transforms have it; its resizing has a = -0.5).
"""

import math

import numpy as np
import tensorflow as tf

_TAPS = {"bilinear": 2, "bicubic": 4}


def rotate(image, degrees, interpolation, fill):
    """Turns the image counterclockwise about its centre."""
    height, width, _ = image.shape
    angle = degrees * (math.pi / 180.0)
    cos, sin = tf.cos(angle), -tf.sin(angle)
    x, y = width / 2, height / 2
    matrix = tf.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])
    return _affine(image, matrix, interpolation, fill)


def shear_x(image, slope, interpolation, fill):
    """Shifts each row to the left by `slope` times its height."""
    if interpolation == "nearest":
        return _affine(image, tf.stack([1.0, slope, 0.0, 0.0, 1.0, 0.0]), interpolation, fill)
    rows = np.arange(image.shape[0], dtype="float32") + 0.5
    return _shift_rows(image, slope * rows, interpolation, fill)


def translate_x(image, pixels, interpolation, fill):
    """Shifts the image to the left."""
    if interpolation == "nearest":
        return _affine(image, tf.stack([1.0, 0.0, pixels, 0.0, 1.0, 0.0]), interpolation, fill)
    return _shift(image, pixels, interpolation, fill, axis=1)


def shear_y(image, slope, interpolation, fill):
    """Shifts each column up by `slope` times its distance from the left."""
    if interpolation == "nearest":
        return _affine(image, tf.stack([1.0, 0.0, 0.0, slope, 1.0, 0.0]), interpolation, fill)
    return _transpose(shear_x(_transpose(image), slope, interpolation, fill))


def translate_y(image, pixels, interpolation, fill):
    """Shifts the image up."""
    if interpolation == "nearest":
        return _affine(image, tf.stack([1.0, 0.0, 0.0, 0.0, 1.0, pixels]), interpolation, fill)
    return _shift(image, pixels, interpolation, fill, axis=0)


def _transpose(image):
    return tf.transpose(image, [1, 0, 2])


def _affine(image, matrix, interpolation, fill):
    """The pixel with its centre at (x, y) becomes the value at (a x + b y + c, d x + e y + f)."""
    if interpolation == "nearest":
        return _nearest(image, matrix, fill)
    height, width, _ = image.shape
    y, x = (np.mgrid[:height, :width].reshape(2, -1) + 0.5).astype("float32")
    a, b, c, d, e, f = tf.unstack(matrix)
    return _gather(image, a * x + b * y + c, d * x + e * y + f, interpolation, fill)


def _nearest(image, matrix, fill):
    a, b, c, d, e, f = tf.unstack(matrix)
    # Pillow's coefficients are fixed-point numbers of 16 bits, which decides the many ties of a shear. TensorFlow
    # counts from the first pixel's centre, Pillow from its corner.
    transform = tf.stack([a, b, c + (a + b) / 2.0, d, e, f + (d + e) / 2.0, 0.0, 0.0])
    transform = tf.floor(transform * 65536.0 + 0.5) / 65536.0 - np.array([0, 0, 0.5, 0, 0, 0.5, 0, 0], "float32")
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=(image - fill)[None],
        transforms=transform[None],
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return moved[0] + fill


def _gather(image, x, y, interpolation, fill):
    """Samples at the points (x, y), one for each pixel, counted from the image's corner."""
    height, width, _ = image.shape
    taps = _TAPS[interpolation]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = tf.clip_by_value(x, 0.0, width) - 0.5, tf.clip_by_value(y, 0.0, height) - 0.5
    left, top = tf.floor(x), tf.floor(y)
    # One gathered row holds the neighbours along x; matrix products spread the weights over the channels, which
    # is faster than broadcasting over so short an axis.
    padded = _repeat_border(_repeat_border(image, taps // 2, axis=0), taps // 2, axis=1)
    windows = tf.concat([padded[:, i : i + width + 1] for i in range(taps)], -1)
    windows = tf.reshape(windows, [-1, 3 * taps])
    index = tf.cast((top + 1.0) * (width + 1) + left + 1.0, tf.int32)
    across, down = _weights(x - left, interpolation), _weights(y - top, interpolation)
    spread = np.ones((1, 3 * taps), "float32")
    total = 0.0
    for j in range(taps):
        total += tf.gather(windows, index + j * (width + 1)) * tf.matmul(down[j][:, None], spread)
    total *= tf.matmul(across, np.kron(np.eye(taps), np.ones((1, 3))).astype("float32"), transpose_a=True)
    total = tf.matmul(total, np.kron(np.ones((taps, 1)), np.eye(3)).astype("float32"))
    return _fill_outside(tf.reshape(total, image.shape), inside, fill)


def _shift_rows(image, shift, interpolation, fill):
    """Samples each row `shift` pixels further right. `shift` has one value a row."""
    height, width, _ = image.shape
    taps = _TAPS[interpolation]
    shift = tf.clip_by_value(shift, -float(width), float(width))
    x = np.arange(width, dtype="float32") + 0.5 + shift[:, None]
    inside = tf.reshape((x >= 0) & (x < width), [-1])
    whole = tf.floor(shift)
    # A crop of each row as an image of its own: the one operation that moves rows by different amounts fast.
    # Its coordinates are normalised floats, so the padding keeps their rounding errors off the border.
    rows = _repeat_border(image, taps // 2 + 1, axis=1)[:, None]
    last = width + taps + 1.0
    start, zero = (whole + 2.0) / last, tf.zeros_like(whole)
    crops = tf.raw_ops.CropAndResize(
        image=rows,
        boxes=tf.stack([zero, start, zero, start + (width + taps - 2.0) / last], 1),
        box_ind=np.arange(height, dtype="int32"),
        crop_size=[1, width + taps - 1],
        method="nearest",
    )
    crops = tf.reshape(crops, [height, -1])
    weights = _weights(shift - whole, interpolation)
    total = 0.0
    for i in range(taps):
        total += crops[:, 3 * i : 3 * (i + width)] * weights[i][:, None]
    return _fill_outside(tf.reshape(total, image.shape), inside, fill)


def _shift(image, shift, interpolation, fill, axis):
    """Samples the whole image `shift` pixels further along an axis."""
    size, taps = image.shape[axis], _TAPS[interpolation]
    shift = tf.clip_by_value(shift, -float(size), float(size))
    whole = tf.floor(shift)
    # What is inside has its centre, half a pixel on, between 0 and the size.
    bounds = tf.cast(tf.clip_by_value(tf.math.ceil(tf.constant([0.0, size]) - 0.5 - shift), 0.0, size), tf.int32)
    begin, end = tf.unstack(bounds)
    padded = _repeat_border(image, taps // 2, axis)
    first = begin + tf.cast(whole, tf.int32) + 1

    def part(of, start, length):
        stop = start + length
        return of[start:stop] if axis == 0 else of[:, start:stop]

    weights = _weights(shift - whole, interpolation)
    inside = sum(part(padded, first + i, end - begin) * weights[i] for i in range(taps))
    outside = tf.constant(np.tile(np.array(fill, "float32"), (*image.shape[:2], 1)))
    parts = [part(outside, 0, begin), _whole(inside), part(outside, 0, size - end)]
    return tf.ensure_shape(tf.concat(parts, axis), image.shape)


def _repeat_border(image, size, axis):
    first, last = (image[:1], image[-1:]) if axis == 0 else (image[:, :1], image[:, -1:])
    return tf.concat([first] * size + [image] + [last] * size, axis)


def _weights(t, interpolation):
    """Weights `(taps, points)` of the neighbours of a point that lies `t` past one of them."""
    if interpolation == "bilinear":
        return tf.stack([1.0 - t, t])
    return tf.stack(
        [
            -t * (1.0 - t) * (1.0 - t),
            1.0 - (2.0 - t) * t * t,
            t * (1.0 + t * (1.0 - t)),
            -t * t * (1.0 - t),
        ]
    )


def _fill_outside(image, inside, fill):
    """Whole values where `inside` (one value a pixel) is true, the fill colour elsewhere."""
    inside = tf.matmul(tf.cast(inside, tf.float32)[:, None], np.ones((1, 3), "float32"))
    fill = np.tile(np.array(fill, "float32"), (image.shape[1], 1))
    return (_whole(image) - fill) * tf.reshape(inside, image.shape) + fill


def _whole(values):
    # The small addend undoes float32's rounding below a whole value.
    return tf.floor(tf.clip_by_value(values + 2e-4, 0.0, 255.0))
