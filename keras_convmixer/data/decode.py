"""Image bytes into pixels, as graph functions for tf.data.

JPEG and PNG, which nearly all images are, are decoded by TensorFlow, the rest in a numpy_function by Pillow, see
`pillow_image`.
Sizes are (height, width), colours RGB in 0–255.
"""

import tensorflow as tf

from keras_convmixer.data import exif
from keras_convmixer.data.graph import apart
from keras_convmixer.data.pillow_image import FORMATS, MAX_PIXELS, TOO_LARGE, opened, rgb

NEITHER = "neither a JPEG nor a PNG image, which are all that a SavedModel reads: convert it to one of them"
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
SIGNATURES = {"PNG": PNG, "JPEG": JPEG}
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


class UndecodableImage(tf.errors.InvalidArgumentError, ValueError):
    """What Pillow cannot read. In a graph TensorFlow turns a ValueError into its own error, eagerly it does not."""

    def __init__(self, problem):
        super().__init__(None, None, problem)


def decode(encoded):
    """Decodes a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or, with the extra `heif`, HEIC image, told apart by content.

    Of several frames or pages the first is taken. Grey, palette, 16-bit, CMYK and transparent images become RGB
    (transparency is dropped), and the EXIF orientation is followed.

    Args:
        encoded: scalar tf.string, a file's content.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: it is no such image, is damaged, or has more than `MAX_PIXELS`.
    """

    @apart
    def other():
        return tf.cond(
            _starts_with(encoded, PNG),
            lambda: _upright_png(encoded),
            lambda: tf.numpy_function(_decode_other, [encoded], tf.uint8, stateful=False),
        )

    image = tf.cond(is_jpeg(encoded), lambda: _upright_jpeg(encoded), other)
    return tf.ensure_shape(image, (None, None, 3))


def decode_jpeg_or_png(encoded):
    """As `decode`, with TensorFlow's operations alone, so that a SavedModel can hold it. Takes JPEG and PNG."""
    known = tf.reduce_any([_starts_with(encoded, start) for start in SIGNATURES.values()])
    with tf.control_dependencies([tf.raw_ops.Assert(condition=known, data=[NEITHER])]):
        encoded = tf.identity(encoded)
    image = tf.cond(is_jpeg(encoded), lambda: _upright_jpeg(encoded), lambda: _upright_png(encoded))
    return tf.ensure_shape(image, (None, None, 3))


def evaluation_image(encoded, preprocessing):
    """The image as a model sees it in evaluation: resized to cover, then the centre cropped, as timm does it.

    Args:
        encoded: scalar tf.string, a file's content. preprocessing: a `Preprocessing`.

    Returns:
        float32 `(*preprocessing.input_size, 3)`, whole numbers in 0–255.

    Raises:
        tf.errors.InvalidArgumentError: see `decode`.
    """
    return evaluation_crop(decode(encoded), preprocessing)


def evaluation_crop(image, preprocessing):
    """The same for an image that is already decoded: `(height, width, 3)` of any number type, in 0–255."""
    rows, columns = preprocessing.input_size
    least_height, least_width = preprocessing.resize_size

    def as_it_is():
        top, left = round((least_height - rows) / 2), round((least_width - columns) / 2)
        return tf.cast(image[top : top + rows, left : left + columns], tf.float32)

    @apart
    def resized():
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        # As torchvision's Resize: one side as wanted, the other rounded down. As its CenterCrop: half to even.
        size = tf.where(
            height * least_width >= width * least_height,
            tf.stack([least_width * height // width, least_width]),
            tf.stack([least_height, least_height * width // height]),
        )
        offset = tf.round(tf.cast(size - (rows, columns), tf.float32) / 2)
        return resample(image, size, offset, (rows, columns), preprocessing.interpolation)

    # Small images often have the size already.
    crop = tf.cond(tf.reduce_all(tf.shape(image)[:2] == (least_height, least_width)), as_it_is, resized)
    return tf.ensure_shape(crop, (rows, columns, 3))


def resample(image, resized, offset, size, interpolation):
    """A window of an image resized, antialiased. No more than the window is computed.

    Args:
        image: `(height, width, 3)` in 0–255.
        resized: (height, width) of the whole image when resized.
        offset: (top, left) of the window in it.
        size: (height, width) of the window.
        interpolation: "nearest", "bilinear" or "bicubic".

    Returns:
        float32 `(*size, 3)`, whole numbers in 0–255.
    """
    if interpolation == "nearest":
        return _nearest(image, resized, offset, size)
    offset = tf.cast(offset, tf.float32)
    scale = tf.cast(resized, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    # ScaleAndTranslate adds up pixels of many channels fast, and those of three slowly. So it gets each line as one
    # pixel: first the rows, then, the matrix of all numbers being transposed in between, the columns. The image is
    # a single row of such pixels, for one of several rows it would share out among threads, which takes longer.
    for lines, axis, rows in ((tf.shape(image)[0], 0, size[0]), (tf.shape(image)[1], 1, 3 * size[1])):
        image = tf.raw_ops.ScaleAndTranslate(
            images=tf.reshape(image, (1, 1, lines, -1)),
            size=(1, size[axis]),
            scale=tf.stack([1.0, scale[axis]]),
            translation=tf.stack([0.0, -offset[axis]]),
            kernel_type=KERNELS[interpolation],
            antialias=True,
        )
        image = _transposed(tf.reshape(image, (rows, -1)))
    image = tf.reshape(image, (*size, 3))
    return tf.round(tf.clip_by_value(image, 0.0, 255.0) if interpolation == "bicubic" else image)


def _transposed(matrix):
    # As integers: for floats oneDNN compiles a transposition for every new size, which takes longer than to do it.
    return tf.bitcast(tf.transpose(tf.bitcast(matrix, tf.int32)), tf.float32)


def _nearest(image, resized, offset, size):
    # in whole numbers, so that a place between two pixels always goes to the later one
    old, new, first = (tf.cast(values, tf.int64) for values in (tf.shape(image), resized, offset))
    rows, columns = (
        (2 * (tf.range(size[axis], dtype=tf.int64) + first[axis]) + 1) * old[axis] // (2 * new[axis])
        for axis in (0, 1)
    )
    return tf.cast(tf.gather(tf.gather(image, rows), columns, axis=1), tf.float32)


def is_jpeg(encoded):
    """Whether an image file is a JPEG, by its start."""
    return _starts_with(encoded, JPEG)


def _starts_with(encoded, signature):
    return tf.strings.substr(encoded, 0, len(signature)) == signature


def _upright_jpeg(encoded):
    return exif.upright(_decode_jpeg(encoded), exif.orientation(encoded, exif.JPEG_MARKER))


def _upright_png(encoded):
    return exif.upright(_decode_png(encoded), exif.orientation(encoded, exif.PNG_MARKER))


def _decode_jpeg(encoded):
    with tf.control_dependencies([jpeg_size(encoded)]):
        # TensorFlow's default, the fast DCT, is off by several grey levels.
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(encoded):
    # Width and height stand at byte 16, big-endian; zeros after the end of a file that is too short for them.
    header = tf.strings.join([tf.strings.substr(encoded, 0, 24), bytes(24)])
    size = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)
    with tf.control_dependencies([_checked(size)]):
        return tf.io.decode_png(encoded, channels=3)


def jpeg_size(encoded):
    """(height, width) of a JPEG as it is stored, before its orientation is followed. As `decode` it may raise."""
    return _checked(tf.io.extract_jpeg_shape(encoded)[:2])


def _checked(size):
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=pixels <= MAX_PIXELS, data=[TOO_LARGE])]):
        return tf.identity(size)


def _decode_other(encoded):
    try:
        with opened(_bytes(encoded), [name for name in FORMATS if name not in SIGNATURES]) as image:
            return rgb(image)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over.
        raise UndecodableImage(str(error)) from None


def _bytes(value):
    # In a graph a numpy_function gets the bytes, eagerly an array of one object.
    return value if isinstance(value, bytes) else value.item()
