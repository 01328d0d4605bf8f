"""The TFLite graph computes what the model does, in operations that TFLite's fast path takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from test_fold import images, randomised

from keras_convmixer.deployment import depthwise_parts, tflite
from keras_convmixer.deployment.lite_graph import groups_of


@given(st.integers(1, 16), st.integers(1, 16))
def test_each_tap_is_in_exactly_one_part(height, width):
    index = np.arange(height * width).reshape(height, width)
    parts = depthwise_parts.partition(height, width)
    found = np.concatenate([depthwise_parts.taps(part, index).ravel() for part in parts])
    assert sorted(found) == list(range(height * width))
    assert all(part.rows.count * part.columns.count <= 25 for part in parts)
    assert len(parts) == 1 or height * width > 25


@pytest.mark.parametrize("size, parts", [(5, 1), (7, 3), (9, 5)])
def test_how_many_parts_the_papers_kernels_have(size, parts):
    assert len(depthwise_parts.partition(size, size)) == parts


@pytest.mark.parametrize(
    "channels, groups", [(1536, 8), (768, 4), (1024, 8), (256, 2), (192, 1), (24, 1), (500, 1)]
)
def test_groups_are_equal_and_of_whole_vectors(channels, groups):
    assert groups_of(channels) == groups


def run(content, batch):
    runner = Interpreter(model_content=content, num_threads=2).get_signature_runner("serving_default")
    answers = [runner(images=image[None]) for image in batch]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(
    "kernel_size, activation, dim",
    [(5, "gelu", 400), (7, "relu", 32), (8, "gelu", 32), (9, "gelu", 32), (11, "relu", 16)],
)
def test_computes_what_the_model_does(kernel_size, activation, dim, split):
    model = randomised(kernel_size=kernel_size, activation=activation, dim=dim, depth=2, classifier_activation=None)
    batch = images(model)
    content = tflite.convert(model, model.input_shape[1:3], split=split, logits=True, features=True)
    found = run(content, batch)
    features = keras.Model(model.input, model.get_layer("pool").input)
    for name, expected in (("logits", model(batch)), ("features", features(batch))):
        expected = keras.ops.convert_to_numpy(expected)
        assert np.abs(found[name] - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(found["logits"]), atol=1e-6)


def operators(content):
    interpreter = Interpreter(model_content=content)
    return [operation["op_name"] for operation in interpreter._get_ops_details()]


def test_a_large_kernel_is_split_unless_told_otherwise():
    model = randomised(kernel_size=9, dim=16, depth=2, classifier_activation=None)
    size = model.input_shape[1:3]
    split, whole = (operators(tflite.convert(model, size, split=s)) for s in (True, False))
    assert split.count("DEPTHWISE_CONV_2D") == 2 * len(depthwise_parts.partition(9, 9))
    assert whole.count("DEPTHWISE_CONV_2D") == 2
    assert not {"PAD", "STRIDED_SLICE"} & set(split)


def test_dynamic_range_leaves_depthwise_weights_in_float32():
    model = randomised(kernel_size=7, dim=64, depth=2, classifier_activation=None)
    content = tflite.convert(model, model.input_shape[1:3], "dynamic", logits=True)
    weights = [t for t in Interpreter(model_content=content).get_tensor_details() if len(t["shape"]) == 4]
    types = {tuple(t["shape"]): np.dtype(t["dtype"]).name for t in weights}
    assert types[64, 1, 1, 64] == "int8"
    assert {dtype for (first, rows, _, _), dtype in types.items() if first == 1 and rows in (3, 4)} == {"float32"}
    logits = run(content, images(model))["logits"]
    expected = keras.ops.convert_to_numpy(model(images(model)))
    assert np.abs(logits - expected).max() < 0.05 * np.ptp(expected)
