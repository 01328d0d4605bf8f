"""Images into batches for evaluation: each that can be read once, in order, with its index beside it."""

import tensorflow as tf

from keras_convmixer.data import decode
from keras_convmixer.data.graph import stream_options


def evaluation_batches(images, preprocessing, batch_size):
    """Every image that can be read once, in order, the last batch as short as it must be.

    Args:
        images: the split, `EncodedImages`.
        preprocessing: a `Preprocessing`.
        batch_size: images in a batch.

    Returns:
        A `tf.data.Dataset` of (pixels, indices): float32 `(n, height, width, 3)` in 0–255 and int64 `(n,)`, the
        images' positions in the split, where n is at most batch_size. A position that does not come is that of an
        image that cannot be read (see `unreadable`).
    """

    @tf.autograph.experimental.do_not_convert  # which only takes time
    def example(index):
        return decode.evaluation_image(images.encoded(index), preprocessing), index

    examples = tf.data.Dataset.range(len(images)).map(example, tf.data.AUTOTUNE).ignore_errors()
    return examples.batch(batch_size).prefetch(2).with_options(stream_options())
