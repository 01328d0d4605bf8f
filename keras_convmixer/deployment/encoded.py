"""JPEG and PNG bytes into pixels with TensorFlow's own operations alone, so that it can be saved in a graph."""

import tensorflow as tf

from keras_convmixer.data import decode as decoding

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
ORIENTATION_TAG = 0x0112


def decode(encoded):
    """As `data.decode.decode`, EXIF orientation included, but for JPEG and PNG only.

    Args:
        encoded: scalar tf.string, a file's content.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: it is no such image, or is damaged.
    """
    # For all its name, this operation tells JPEG and PNG apart and decodes both.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    marker = tf.where(tf.strings.substr(encoded, 0, len(PNG)) == PNG, b"eXIf", b"Exif\0\0")
    return _upright(image, _orientation(encoded, marker))


def _orientation(encoded, marker):
    """EXIF orientation, an int32 in 1–8: 1 where there is none. The marker stands before the EXIF data.

    These are a TIFF file's: byte order, offset of a directory, and in that entries of 12 bytes: tag, type, count,
    value.
    """
    head = tf.strings.substr(encoded, 0, decoding.EXIF_WITHIN)
    exif = tf.strings.split(head, marker, maxsplit=1)[1:]
    # Zeros follow, and come alone where there is no EXIF: whatever an offset says, there is something to read.
    data = tf.io.decode_raw(tf.strings.reduce_join(tf.concat([exif, [bytes(16)]], axis=0)), tf.uint8)
    data = tf.cast(data, tf.int64)
    last = tf.size(data, tf.int64) - 1
    little, big = (tf.reduce_all(data[:2] == list(order)) for order in (b"II", b"MM"))

    def number(offset, length):
        """Unsigned integers of so many bytes each, at one offset or several."""
        places = tf.range(length, dtype=tf.int64)
        weights = tf.bitwise.left_shift(tf.ones_like(places), 8 * tf.where(little, places, length - 1 - places))
        positions = tf.expand_dims(tf.convert_to_tensor(offset, tf.int64), -1) + places
        return tf.reduce_sum(tf.gather(data, tf.minimum(positions, last)) * weights, axis=-1)

    directory = number(4, 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    values = tf.boolean_mask(number(entries + 8, 2), number(entries, 2) == ORIENTATION_TAG)
    orientation = tf.concat([values, [1]], axis=0)[0]
    return tf.where((little | big) & (orientation >= 1) & (orientation <= 8), orientation, 1)


def _upright(image, orientation):
    def is_one_of(*orientations):
        return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))

    image = tf.cond(is_one_of(5, 6, 7, 8), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: tf.reverse(image, [0]), lambda: image)
