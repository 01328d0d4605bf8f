"""A folded ConvMixer as a TensorFlow function, in the shapes that TFLite's kernels are fast at.

Beyond `fold`, three things differ. None changes the function.

- A large depthwise kernel is a sum of small ones, see `depthwise_parts`.
- In floating point, channels go through the depthwise convolution in groups. Its kernel of 25 taps reads 25 rows of
  weights and 25 of pixels for each pixel: of 768 channels they exceed a first-level cache of 48 KiB, of 192 not.
  The groups come from the pointwise convolution, each with its share of the outputs, and meet before the next one.
- In integers, what is multiplied and added for each channel is a 1×1 depthwise convolution. TFLite quantizes a
  convolution's weights with one scale for each channel and its bias to 32 bits, but the constant of a plain
  multiplication or addition to 8 bits with one scale for all.
"""

import math

import numpy as np
import tensorflow as tf

from keras_convmixer.deployment import depthwise_parts

# Rows of 25 taps and 25 pixels of so many float32 channels fit into the cache.
MOST_CHANNELS = 192
VECTOR = 16


def lite_graph(numbers, *, integers=False, split=True, logits=False, features=False):
    """The inference of a ConvMixer as a function for `converter.convert`.

    Args:
        numbers: what `fold.folded` gives for a `ConvMixer` that ends in logits.
        integers: whether its blocks are to be quantized to integers.
        split: whether to split depthwise kernels of more than 25 taps, and the channels into groups.
        logits, features: whether to give the logits, and the last block's map, too.

    Returns:
        A function from images `(1, height, width, 3)` to a dictionary: "probabilities" `(1, classes)` and, if asked
        for, "logits" `(1, classes)` and "features" `(1, height, width, dim)`.
    """
    activation = numbers.activation
    groups = 1 if integers or not split else groups_of(numbers.patches.bias.size)

    def times(x, factor):
        if factor is None:
            return x
        return _depthwise_1x1(x, factor, np.zeros_like(factor)) if integers else x * factor

    def affine(x, scale, shift):
        if integers:
            return _depthwise_1x1(x, np.ones_like(shift) if scale is None else scale, shift)
        return times(x, scale) + shift

    def mix(x, kernel, bias, branch, skip):
        size = kernel.shape[:2]
        parts = depthwise_parts.partition(*size) if split else [depthwise_parts.whole(*size)]
        first, *rest = (_depthwise(x, depthwise_parts.taps(part, kernel), part) for part in parts)
        y = activation(sum(rest, tf.nn.bias_add(first, bias)))
        return times(y, branch) + times(x, skip)

    def each(function, inputs, numbers):
        """Applies a function to each group of channels, with its share of the numbers' last axis."""
        shares = zip(*([None] * groups if n is None else np.split(n, groups, -1) for n in numbers))
        return [function(x, *share) for x, share in zip(inputs, shares)]

    def convolution(x, numbers, stride=1):
        return each(lambda x, kernel, bias: activation(_conv(x, kernel, bias, stride)), [x] * groups, numbers)

    def function(images):
        # TFLite's tensors keep the names of scopes, by which `lite_int8` finds them.
        with tf.name_scope("patches"):
            a = convolution(images, numbers.patches, numbers.patches.kernel.shape[0])
        after = numbers.first
        for i, block in enumerate(numbers.blocks):
            kernel, bias = block.depthwise
            with tf.name_scope(f"block_{i}"):
                with tf.name_scope("x"):
                    x = each(affine, a, after)
                z = _together(each(mix, x, (kernel[..., 0], bias, block.branch, block.skip)))
            a = convolution(z, block.pointwise)
            after = block.after
        last = _together(a)
        scores = tf.matmul(tf.reduce_mean(last, (1, 2)), numbers.head.kernel) + numbers.head.bias
        outputs = {"probabilities": tf.nn.softmax(scores)} | ({"logits": scores} if logits else {})
        return outputs | ({"features": affine(last, *numbers.features)} if features else {})

    return function


def groups_of(channels):
    """Into how many equal groups to divide channels, each of whole vector registers. One if that cannot be."""
    for groups in range(math.ceil(channels / MOST_CHANNELS), channels // VECTOR + 1):
        if channels % (groups * VECTOR) == 0:
            return groups
    return 1


def _together(groups):
    return groups[0] if len(groups) == 1 else tf.concat(groups, -1)


def _conv(x, kernel, bias, stride):
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, "VALID"), bias)


def _depthwise(x, kernel, part):
    # tf.nn.depthwise_conv2d would express a dilation by reordering pixels into batches and back. TensorFlow itself
    # has no CPU kernel for this operation with dilations; TFLite has.
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=kernel[..., None],
        strides=[1] * 4,
        padding="SAME",
        dilations=[1, part.rows.step, part.columns.step, 1],
    )


def _depthwise_1x1(x, scale, shift):
    return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, scale.reshape(1, 1, -1, 1), [1] * 4, "VALID"), shift)
