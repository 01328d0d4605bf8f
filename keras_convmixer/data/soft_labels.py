"""Labels as shares of the classes."""

import tensorflow as tf


def soft_labels(labels, num_classes, smoothing=0.0):
    """float32 `(..., num_classes)` of class numbers `(...)`: off = s / N, on = 1 - s + s / N, for smoothing s."""
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, 1 - smoothing + off, off)
