"""The depthwise convolution of a training step on CPUs, whose gradients avoid TensorFlow's slow kernels."""

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
    around = [[(size - 1) // 2, size // 2] for size in (height, width)]
    padded = tf.pad(x, [[0, 0], *around, [0, 0]])
    bands = []
    for first in range(0, width, _WIDEST):
        columns = min(_WIDEST, width - first)
        reach = padded[:, :, first : first + tf.shape(x)[2] + columns - 1]
        bands.append(gradient(reach, columns, "VALID"))
    return tf.concat(bands, 1)
