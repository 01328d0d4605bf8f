"""A part of a JPEG image, decoded without the rest of it, and smaller where it is much larger than needed."""

import tensorflow as tf

from keras_convmixer.data import decode, exif
from keras_convmixer.data.graph import apart

# What libjpeg can divide both sides by as it decodes, in the discrete cosine transform.
DENOMINATORS = (1, 2, 4, 8)


def jpeg_part(encoded, choose_box, size=None):
    """Decodes a part of a JPEG, upright.

    Args:
        encoded: scalar tf.string, the file's content.
        choose_box: function of the upright image's (height, width), int32 `(2,)`, to the part's (top, left, height,
            width) in it, int32 `(4,)`.
        size: (height, width) that the part is to be resized to. The part is then decoded smaller, by the greatest
            of 2, 4 and 8 that leaves both its sides at least twice that. None: as it is.

    Returns:
        The pixels, uint8 `(rows, columns, 3)`; the part's box; and the box of the pixels, float32: with a size they
        go beyond the part, by less than a pixel of theirs on each side.

    Raises:
        tf.errors.InvalidArgumentError: see `decode.decode`.
    """
    size = None if size is None else tf.constant(size)
    orientation, stored = exif.orientation(encoded, exif.JPEG_MARKER), decode.jpeg_size(encoded)

    def as_it_is():
        box = choose_box(stored)
        pixels, window = _decoded(encoded, box, size)
        return pixels, box, window

    @apart
    def turned():
        upright = exif.upright_size(stored, orientation)
        box = choose_box(upright)
        least = None if size is None else exif.upright_size(size, orientation)
        pixels, window = _decoded(encoded, exif.stored_box(box, upright, orientation), least)
        window = exif.upright_box(window, tf.cast(stored, tf.float32), orientation)
        return exif.upright(pixels, orientation), box, window

    return tf.cond(orientation == 1, as_it_is, turned)


def _decoded(encoded, box, size):
    """The pixels of a box, at least twice a size if one is given, and the box of these pixels."""

    def by(denominator):
        first = box[:2] // denominator
        last = -(-(box[:2] + box[2:]) // denominator)
        window = tf.concat([first, last - first], axis=0)
        pixels = tf.raw_ops.DecodeAndCropJpeg(
            contents=encoded, crop_window=window, channels=3, ratio=denominator, dct_method="INTEGER_ACCURATE"
        )
        return pixels, tf.cast(window * denominator, tf.float32)

    if size is None:
        return by(1)
    # libjpeg averages blocks of pixels, which the resizing must still have several of: of photographs at 64×64 the
    # pixels differ by 0.27 grey levels in the mean so, and by 1.1 where it leaves no more than the size.
    times = tf.reduce_min(box[2:] // (2 * size))
    choice = tf.reduce_sum(tf.cast(times >= DENOMINATORS[1:], tf.int32))
    return tf.switch_case(choice, [lambda d=d: by(d) for d in DENOMINATORS])
