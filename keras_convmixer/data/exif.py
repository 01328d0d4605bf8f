"""EXIF orientation, read and followed with TensorFlow's own operations, so that a saved graph can hold it."""

import tensorflow as tf

from keras_convmixer.data.graph import apart

# EXIF stands near a file's start: in the samples of ImageNet always within these bytes.
WITHIN = 65_536
JPEG_MARKER, PNG_MARKER = b"Exif\0\0", b"eXIf"
ORIENTATION_TAG = 0x0112
# Of which orientations the stored image's rows are columns; and once these are rows, are mirrored, or upside down.
_EXCHANGED, _MIRRORED, _REVERSED = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


def orientation(encoded, marker):
    """The orientation that an image file asks for.

    Args:
        encoded: scalar tf.string, a file's content. marker: what stands before the EXIF data in such a file.

    Returns:
        int64 scalar in 1–8; 1, upright, where there is none or it is damaged.
    """
    start = tf.strings.substr(encoded, 0, WITHIN)
    # Searching is this operation's work: splitting takes three times as long, and matching reads to the end.
    without = tf.strings.regex_replace(start, marker, b"", replace_global=False)
    found = tf.strings.length(without) < tf.strings.length(start)

    @apart
    def read():
        return _read(tf.strings.split(start, marker, maxsplit=1)[1])

    return tf.cond(found, read, lambda: tf.constant(1, tf.int64))


def upright(image, orientation):
    """The image `(height, width, channels)` turned and mirrored as its orientation asks."""

    def exchanged():
        # Gathered, since TensorFlow logs an error about oneDNN, on some processors, where it transposes integers.
        height, width, _ = tf.unstack(tf.shape(image))
        places = tf.range(width)[:, None] + width * tf.range(height)
        return tf.gather(tf.reshape(image, (height * width, 3)), places)

    @apart
    def turned():
        result = tf.cond(_is_one_of(orientation, _EXCHANGED), exchanged, lambda: image)
        result = tf.cond(_is_one_of(orientation, _MIRRORED), lambda: tf.reverse(result, [1]), lambda: result)
        return tf.cond(_is_one_of(orientation, _REVERSED), lambda: tf.reverse(result, [0]), lambda: result)

    return tf.cond(orientation == 1, lambda: image, turned)


def upright_size(size, orientation):
    """(height, width) of an image once it is upright, of those as it is stored; or the other way round."""
    return tf.where(_is_one_of(orientation, _EXCHANGED), size[::-1], size)


def stored_box(box, size, orientation):
    """Where a part of the upright image is in the image as it is stored.

    Args:
        box: (top, left, height, width) of the part in the upright image. size: (height, width) of that image.
    """
    mirrored, reversed_ = _is_one_of(orientation, _MIRRORED), _is_one_of(orientation, _REVERSED)
    corner, extent = box[:2], box[2:]
    corner = tf.where([reversed_, mirrored], size - corner - extent, corner)
    exchanged = _is_one_of(orientation, _EXCHANGED)
    return tf.concat([tf.where(exchanged, pair[::-1], pair) for pair in (corner, extent)], axis=0)


def upright_box(box, size, orientation):
    """Where a part of the image as it is stored, of that size, is in the upright image: `stored_box` undone."""
    # A quarter turn is undone by the other one, all else by itself.
    undone = tf.where(_is_one_of(orientation, (6, 8)), 14 - orientation, orientation)
    return stored_box(box, size, undone)


def _is_one_of(orientation, orientations):
    return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))


def _read(exif):
    """The orientation in EXIF data, which are those of a TIFF file.

    They hold a byte order, the offset of a directory, and in that entries of 12 bytes: tag, type, count, value.
    """
    # Zeros follow: whatever an offset says, there is something to read.
    data = tf.cast(tf.io.decode_raw(tf.strings.join([exif, bytes(16)]), tf.uint8), tf.int64)
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
    found = tf.concat([values, [1]], axis=0)[0]
    return tf.where((little | big) & (found >= 1) & (found <= 8), found, 1)
