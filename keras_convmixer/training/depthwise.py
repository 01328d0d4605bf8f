"""The depthwise convolution of a training step on CPUs, whose gradients avoid TensorFlow's slow kernels."""

import functools

import tensorflow as tf

# The widest filter for which oneDNN, the library of TensorFlow's CPU kernels, has a depthwise filter gradient. For
# wider ones it takes its general grouped convolution, which is two to five times slower.
_WIDEST = 3


@tf.custom_gradient
def depthwise_convolution(x, kernel):
    """What `tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")` computes, for a channel multiplier of 1."""

    def gradient(dy):
        return _input_gradient(x, kernel, dy), _filter_gradient(x, kernel, dy)

    return _convolution(x, kernel), gradient


def _convolution(x, kernel):
    return tf.nn.depthwise_conv2d(x, kernel, [1] * 4, "SAME")


def _input_gradient(x, kernel, dy):
    height, width = kernel.shape[:2]
    if height % 2 and width % 2:  # "same" padding is then symmetric, and the forward kernel the faster one
        return _convolution(dy, tf.reverse(kernel, (0, 1)))
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, strides=[1] * 4, padding="SAME"
    )


def _filter_gradient(x, kernel, dy):
    """Computed for as many columns of the filter at a time as the fast kernel takes."""
    height, width, channels, _ = kernel.shape

    def gradient(x, columns, padding):
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=x, filter_sizes=(height, columns, channels, 1), out_backprop=dy, strides=[1] * 4, padding=padding
        )

    if width <= _WIDEST:
        return gradient(x, width, "SAME")
    bands = [(first, min(_WIDEST, width - first)) for first in range(0, width, _WIDEST)]
    reaches = _reaches(x, height, width, bands)
    return tf.concat([gradient(reach, columns, "VALID") for reach, (_, columns) in zip(reaches, bands)], 1)


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _reaches(x, height, width, bands):
    """What each band of the filter's columns, a first one and a number, sees of the image padded as for "same"."""
    reaches = []
    for first, columns in bands:
        start = first - (width - 1) // 2
        stop = start + tf.shape(x)[2] + columns - 1
        seen = x[:, :, tf.maximum(start, 0) : stop]
        across = [tf.maximum(-start, 0), tf.maximum(stop - tf.shape(x)[2], 0)]
        reaches.append(tf.pad(seen, [[0, 0], [(height - 1) // 2, height // 2], across, [0, 0]]))
    return reaches
