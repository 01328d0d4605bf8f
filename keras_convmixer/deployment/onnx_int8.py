"""A ConvMixer with the convolutions of its blocks in 8 bits as an ONNX graph, rounded as `ranges` says.

What lies between them stays in float32, and so do the head and the patch embedding: that is little of the work, and
its few weights of large pixels lose the most.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_convmixer.deployment import fold, ranges
from keras_convmixer.deployment.onnx_graph import Rounding, onnx_graph
from keras_convmixer.progress import Progress


def convert(model, input_size, representative, *, runtime, features=False):
    """A ConvMixer as an `onnx.ModelProto`, see `onnx_graph`.

    Args:
        model: a float32 `ConvMixer` that ends in logits. input_size: (height, width) of its images.
        representative: an iterable of float32 images `(1, height, width, 3)` in 0–255, as in evaluation, which
            decide on scales and ranges.
        runtime: what is to run it, "onnx" or "openvino". ONNX Runtime computes in integers only where the sums of a
            convolution are rounded to 8 bits too. OpenVINO takes them into the activation as they are.
        features: whether to give the last block's map too.
    """
    images, numbers = [np.asarray(image) for image in representative], fold.folded(model)
    seen = _blocks(_observed(fold.model_of(numbers, model), images))
    divisors, ranges_of_x = zip(*ranges.divisors(numbers, [[x, z] for (x,), (z,) in seen]))
    numbers = ranges.divided(numbers, divisors)
    seen = _blocks(_observed(fold.model_of(numbers, model), images, counted=True, sums=runtime == "onnx"))
    before_gelu = numbers.activation is keras.activations.gelu
    roundings = []
    for range_of_x, (depthwise, pointwise) in zip(ranges_of_x, seen):
        range_of_z = ranges.on_grid(*ranges.best_range(pointwise[0]))
        for given, (_, *sums) in ((range_of_x, depthwise), (range_of_z, pointwise)):
            made = [ranges.on_grid(*ranges.best_range(one, before_gelu=before_gelu)) for one in sums]
            roundings.append(Rounding(given, *made))
    return onnx_graph(numbers, input_size, features=features, roundings=roundings)


def _observed(model, images, *, counted=False, sums=False):
    """For each convolution of a folded model a list of `Seen`, counted or not: what goes in and, with `sums`, what
    comes out before the activation.
    """
    tensors = []
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            tensors.append([layer.input])
            if sums:
                own = {"activation": None, "name": f"{layer.name}_sums"}
                bare = type(layer).from_config(layer.get_config() | own)
                tensors[-1].append(bare(layer.input))
                bare.set_weights(layer.get_weights())
    probe = keras.Model(model.input, tensors)
    in_graph = tf.function(lambda image: probe(image, training=False))
    seen = [[ranges.Seen(counted) for _ in own] for own in tensors]
    with Progress("setting ranges by images", len(images)) as progress:
        for image in images:
            for own, values in zip(seen, in_graph(tf.constant(image))):
                for one, value in zip(own, values):
                    one.add(value.numpy())
            progress.update()
    return seen


def _blocks(seen):
    """Of what was seen, block by block, what belongs to the depthwise convolution and to the pointwise one."""
    return list(zip(seen[1::2], seen[2::2]))
