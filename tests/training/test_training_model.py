"""The model that trains computes what the plain one computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erfc

import keras_convmixer
from keras_convmixer.training.depthwise_gradients import depthwise_convolution
from keras_convmixer.training.fused import FusedBatchNormalization, biased
from keras_convmixer.training.training_model import training_model

LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


def plain(activation="gelu", depth=3, kernel_size=5, input_shape=(12, 12, 3)):
    keras.utils.set_random_seed(3)
    return keras_convmixer.ConvMixer(
        16,
        depth,
        kernel_size,
        2,
        input_shape=input_shape,
        num_classes=5,
        classifier_activation=None,
        activation=activation,
    )


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (8, 12, 12, 3)).astype("float32"), np.eye(5, dtype="float32")[rng.integers(0, 5, 8)]


def gradients(model, images, labels):
    @tf.function
    def run():
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(images, training=True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    return run()


def assert_same_gradients(ours, theirs, tolerance=1e-6):
    expected_loss, expected = gradients(theirs, *batch())
    loss, found = gradients(ours, *batch())
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected))
    for a, b, variable in zip(found, expected, theirs.trainable_variables):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * norm, err_msg=variable.path)


@pytest.mark.parametrize("rematerialize", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_gradients_equal_kerass_own(activation, rematerialize):
    model = plain(activation)
    assert_same_gradients(training_model(model, rematerialize=rematerialize), model)


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 7, 8, 9])
def test_gradients_of_any_kernel_size(kernel_size):
    model = plain(depth=1, kernel_size=kernel_size)
    assert_same_gradients(training_model(model), model)


def test_gradients_where_the_input_has_no_fixed_size():
    model = plain(depth=1, input_shape=(None, None, 3))
    assert_same_gradients(training_model(model), model)


def test_float64_stays_kerass_own():
    keras.config.set_dtype_policy("float64")
    try:
        model = plain(depth=1)
        ours = training_model(model, "float64")
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same_gradients(ours, model, tolerance=1e-14)
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in model.layers]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (4, 6), (5, 5), (7, 3), (2, 9)])
@pytest.mark.parametrize("size", [(6, 8), (3, 2)])
def test_the_depthwise_convolution_and_its_gradients(size, kernel_shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    # Values that bfloat16 holds exactly.
    x, dy = (rng.integers(-8, 8, (2, *size, 16)).astype("float32") for _ in "xy")
    kernel = rng.integers(-8, 8, (*kernel_shape, 16, 1)).astype("float32")

    def own(x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, [1] * 4, "SAME")

    def results(convolution, dtype):
        inputs = [tf.cast(value, dtype) for value in (x, kernel)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = convolution(*inputs)
        return [y, *tape.gradient(y, inputs, output_gradients=tf.cast(dy, dtype))]

    for found, expected in zip(results(depthwise_convolution, dtype), results(own, "float32")):
        error = tf.norm(tf.cast(found, "float32") - expected)
        assert found.dtype == dtype
        assert error <= tolerance * tf.norm(expected)


def test_gelu_and_its_derivative_everywhere():
    """Within 1e-6, at infinity too: about what float32 leaves of Keras's own."""
    x = np.float32([*np.linspace(-40, 40, 80_001), -1e30, 1e30, -np.inf, np.inf])
    inputs = tf.constant(x[:, None])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = biased(keras.activations.gelu, inputs, tf.zeros(1))
    found = [result.numpy()[:, 0] for result in (value, tape.gradient(value, inputs))]

    x = x.astype("float64").clip(-1e30, 1e30)
    below, density = 0.5 * erfc(-x / np.sqrt(2)), np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    assert found[0][-1] == np.inf
    for ours, exact in zip(found, (x * below, below + x * density)):
        np.testing.assert_allclose(ours[:-1], exact[:-1], rtol=1e-6, atol=1e-6)


def test_running_variances_are_the_unbiased_ones():
    model = plain(depth=1)
    ours = training_model(model)
    for m in (model, ours):
        gradients(m, *batch())
    theirs, found = (m.get_layer("block_0_depthwise_norm") for m in (model, ours))
    n = 8 * 6 * 6
    unbiased = 0.9 + (theirs.moving_variance.numpy() - 0.9) * n / (n - 1)
    np.testing.assert_allclose(found.moving_variance, unbiased, rtol=1e-5)
    np.testing.assert_allclose(found.moving_mean, theirs.moving_mean, rtol=1e-5, atol=1e-7)


def test_what_is_masked_is_no_part_of_the_statistics():
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    mask = np.arange(6) < np.array([[6], [2], [3], [0]])
    ours, theirs = FusedBatchNormalization(), keras.layers.BatchNormalization()
    for layer in (ours, theirs):
        layer(x, mask=mask, training=True)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-6)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-6)


def test_inference_equals_the_plain_model():
    model = plain()
    ours = training_model(model)
    gradients(ours, *batch())
    model.set_weights(ours.get_weights())
    np.testing.assert_allclose(model(batch(1)[0]), ours(batch(1)[0], training=False), atol=1e-5)


def test_a_frozen_backbone_keeps_its_statistics():
    model = plain()
    for layer in model.layers:
        layer.trainable = layer.name == "head"
    ours = training_model(model)
    before = ours.get_weights()
    gradients(ours, *batch())
    assert [v.path for v in ours.trainable_variables] == ["head/kernel", "head/bias"]
    for a, b in zip(before, ours.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rematerialize", [False, True])
def test_mixed_precision_keeps_both_ends_in_float32(rematerialize):
    model = plain()
    ours = training_model(model, "mixed_bfloat16", rematerialize)
    assert ours.get_layer("normalization").compute_dtype == "float32"
    assert ours.get_layer("block_1_pointwise_norm").compute_dtype == "bfloat16"
    assert ours(batch()[0]).dtype == "float32"
    np.testing.assert_allclose(ours(batch()[0]), model(batch()[0]), atol=0.05)
    loss, found = gradients(ours, *batch())
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in found)
    assert {v.dtype for v in ours.trainable_variables} == {"float32"}


def operations(model):
    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    graph = run.get_concrete_function(tf.TensorSpec((8, 12, 12, 3))).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return [node.op for node in nodes]


def test_rematerialisation_computes_each_convolution_twice():
    model = plain()
    kept, recomputed = operations(training_model(model)), operations(training_model(model, rematerialize=True))
    assert (kept.count("Conv2D"), recomputed.count("Conv2D")) == (4, 8)
    assert recomputed.count("DepthwiseConv2dNative") - kept.count("DepthwiseConv2dNative") == 3
