"""A ConvMixer in int8 is close to the model, and closer than what the stock converter makes of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from test_fold import randomised
from test_lite_graph import run

from keras_convmixer.deployment import converter, fold, ranges, tflite
from keras_convmixer.deployment.lite_graph import lite_graph
from keras_convmixer.deployment.prepare import prepared

KINDS = [
    (7, "relu"),
    (9, "gelu"),
    *(pytest.param(*kind, marks=pytest.mark.slow) for kind in ((5, "gelu"), (7, "silu"), (9, "relu"))),
]


def small(kernel_size, activation):
    """A model, and images with even parts, where a rounded shift is summed up over a kernel."""
    model = randomised(kernel_size=kernel_size, activation=activation, dim=32, gamma=1, classifier_activation=None)
    corners = np.random.default_rng(0).uniform(0, 256, (96, 2, 2, 3))
    return model, tf.image.resize(corners, model.input_shape[1:3]).numpy().astype("uint8")


def relative_error(found, expected):
    return np.sqrt(np.mean(np.square(found - expected))) / expected.std()


@pytest.mark.parametrize("kernel_size, activation", KINDS)
def test_is_closer_to_the_model_than_stock_int8(kernel_size, activation):
    model, pixels = small(kernel_size, activation)
    size, representative = model.input_shape[1:3], [image[None].astype("float32") for image in pixels[:32]]
    ours = tflite.convert(model, size, "int8", representative, logits=True)
    stock = converter.convert(prepared(model, folded=False), size, "int8", representative)
    expected = keras.ops.convert_to_numpy(model(pixels.astype("float32")))
    error, stock_error = (relative_error(run(content, pixels)["logits"], expected) for content in (ours, stock))
    assert error < 0.012
    assert error < 0.8 * stock_error


def test_a_patch_embedding_of_differences_is_not_rounded():
    """Its weights cancel out, and what 8 bits make of them does not: it would see how bright a pale image is."""
    model, pixels = small(3, "gelu")
    pixels = 200 + pixels // 8
    embedding = model.get_layer("patch_embedding")
    kernel, bias = embedding.get_weights()
    embedding.set_weights([(kernel - kernel.mean((0, 1, 2))) * 64, bias])
    size, representative = model.input_shape[1:3], [image[None].astype("float32") for image in pixels[:32]]
    content = tflite.convert(model, size, "int8", representative, logits=True)
    expected = keras.ops.convert_to_numpy(model(pixels.astype("float32")))
    assert relative_error(run(content, pixels)["logits"], expected) < 0.03


@pytest.mark.parametrize("kernel_size, activation", KINDS)
def test_dividing_channels_leaves_the_function(kernel_size, activation):
    model, pixels = small(kernel_size, activation)
    numbers = fold.folded(model)
    rng = np.random.default_rng(1)
    divisors = [np.exp(rng.uniform(-2, 1, 32)).astype("float32") for _ in numbers.blocks]
    graph = lite_graph(ranges.divided(numbers, divisors), integers=True, logits=True)
    images = pixels[:4].astype("float32")
    found = run(converter.convert(graph, model.input_shape[1:3]), images)["logits"]
    assert relative_error(found, keras.ops.convert_to_numpy(model(images))) < 1e-5


def test_weights_lie_inside_the_file():
    """Not behind the model, where only newer runtimes look for them."""
    model = randomised(dim=256, depth=3, kernel_size=3, classifier_activation=None)
    image = np.zeros((1, *model.input_shape[1:]), "float32")
    for quantize in ("dynamic", "int8"):
        content = tflite.convert(model, model.input_shape[1:3], quantize, [image, image + 255])
        parsed = schema.Model.GetRootAs(content, 0)
        buffers = [parsed.Buffers(i) for i in range(parsed.BuffersLength())]
        assert all(buffer.Offset() <= 1 for buffer in buffers)
        assert sum(buffer.DataLength() for buffer in buffers) > 3 * 256 * 256


def test_a_block_that_sees_only_zeros_is_no_obstacle():
    model, pixels = small(7, "relu")
    kernel, bias = model.get_layer("patch_embedding").get_weights()
    model.get_layer("patch_embedding").set_weights([kernel, bias - 1e4])
    model.get_layer("patch_embedding_norm").set_weights([np.full(32, value) for value in (1, 0, 0, 1)])
    representative = [image[None].astype("float32") for image in pixels[:4]]
    content = tflite.convert(model, model.input_shape[1:3], "int8", representative, logits=True)
    expected = keras.ops.convert_to_numpy(model(pixels[:4].astype("float32")))
    assert np.abs(run(content, pixels[:4])["logits"] - expected).max() < 0.05 * np.ptp(expected)
