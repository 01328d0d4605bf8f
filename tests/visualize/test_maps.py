"""Kernels, feature maps and class activation maps, against the model's own weights, outputs and gradients."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import visualize
from keras_convmixer.errors import UserError

DIGITS = Path(__file__).parent.parent.parent / "saved_models" / "digits"


def random_statistics(model):
    """Gives all BatchNorms something to do, and the model back."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (w.shape for w in layer.weights)
            values = (rng.normal(1, 0.3, gamma), rng.normal(0, 0.5, beta), rng.normal(0, 0.2, mean))
            layer.set_weights([*values, rng.uniform(0.05, 0.5, variance)])
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = keras_convmixer.ConvMixer(12, 3, 3, 2, input_shape=(9, 11, 3), num_classes=5, dropout=0.5)
    return random_statistics(made)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 255, (9, 11, 3)).astype("float32")


def test_a_model_that_keras_quantized_is_refused():
    quantized = keras_convmixer.ConvMixer(12, 1, 3, 2, input_shape=(8, 8, 3), num_classes=5)
    quantized.quantize("int8")
    with pytest.raises(UserError, match="was quantized by Keras"):
        visualize.class_activation_map(quantized, np.zeros((8, 8, 3), "float32"))


def test_kernels_are_the_models(model):
    for block in range(3):
        own = keras.ops.convert_to_numpy(model.get_layer(f"block_{block}_depthwise").kernel)
        kernels = visualize.depthwise_kernels(model, block)
        assert kernels.shape == (12, 3, 3)
        np.testing.assert_array_equal(kernels, np.moveaxis(own[..., 0], -1, 0))
    np.testing.assert_array_equal(visualize.depthwise_kernels(model), kernels)
    filters = visualize.patch_embeddings(model)
    assert filters.shape == (12, 2, 2, 3)
    own = keras.ops.convert_to_numpy(model.get_layer("patch_embedding").kernel)
    np.testing.assert_array_equal(filters, np.moveaxis(own, -1, 0))


def test_feature_maps_are_the_blocks_outputs(model, image):
    outputs = keras_convmixer.features(model)(image[None], training=False)
    for block, output in enumerate(outputs):
        found = visualize.feature_maps(model, image, block)
        assert found.shape == (4, 5, 12)
        np.testing.assert_allclose(found, keras.ops.convert_to_numpy(output)[0], atol=1e-6)


def test_the_mean_of_the_last_blocks_map_and_the_bias_are_the_logit(model, image):
    bias = np.arange(5, dtype="float32")
    model.get_layer("head").bias.assign(bias)
    probabilities = keras.ops.convert_to_numpy(model(image[None], training=False))[0]
    logits = visualize.logits(model, image)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), probabilities, atol=1e-5)
    for index in range(5):
        found = visualize.class_activation_map(model, image, index)
        assert found.shape == (4, 5)
        assert found.mean() + bias[index] == pytest.approx(logits[index], abs=1e-5)
    likeliest = visualize.class_activation_map(model, image, int(probabilities.argmax()))
    np.testing.assert_array_equal(visualize.class_activation_map(model, image), likeliest)


def gradient_and_activation(model, image, index, block):
    """The gradient of a logit by a block's output, and that output, by TensorFlow itself."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's gradient is what is compared with")
    import tensorflow as tf

    norm = model.get_layer(f"block_{block}_pointwise_norm").output
    activation = tf.constant(keras.Model(model.input, norm)(image[None], training=False))
    pooled = keras.Model(norm, model.get_layer("pool").output)
    head = model.get_layer("head")
    with tf.GradientTape() as tape:
        tape.watch(activation)
        logit = tf.linalg.matvec(head.kernel, pooled(activation, training=False)[0], transpose_a=True)[index]
    return tape.gradient(logit, activation).numpy()[0], activation.numpy()[0]


@pytest.mark.parametrize("block", range(3))
def test_maps_are_what_the_gradients_define(model, image, block):
    gradients, activation = gradient_and_activation(model, image, 3, block)
    expected = (activation * gradients.sum(axis=(0, 1))).sum(axis=-1)
    found = visualize.class_activation_map(model, image, 3, block)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_map_of_a_trained_model_is_what_the_gradients_define(digit):
    model = keras_convmixer.load(DIGITS).model
    gradients, activation = gradient_and_activation(model, digit, 2, 3)
    expected = (activation * gradients.sum(axis=(0, 1))).sum(axis=-1)
    found = visualize.class_activation_map(model, digit)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    logit = model.predict_on_batch(digit[None])[0, 2]
    assert found.mean() + model.get_layer("head").bias.numpy()[2] == pytest.approx(logit, abs=1e-4)


def test_an_earlier_blocks_weights_are_slopes_of_the_logit(model, image):
    norm = model.get_layer("block_0_pointwise_norm").output
    rest = keras.Model(norm, model.get_layer("pool").output)
    weights = keras.ops.convert_to_numpy(model.get_layer("head").kernel)[:, 1]
    activation = visualize.feature_maps(model, image, 0)
    # A channel of all places moved at once; in float32 with steps large enough to be seen.
    moved = [activation + sign * 0.05 * np.eye(12, dtype="float32")[c] for c in range(12) for sign in (1, -1)]
    up, down = (keras.ops.convert_to_numpy(rest(np.stack(moved), training=False)) @ weights).reshape(12, 2).T
    expected = activation @ ((up - down) / 0.1)
    found = visualize.class_activation_map(model, image, 1, 0)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_what_cannot_be_looked_at_is_refused(model, image):
    with pytest.raises(ValueError, match="no block 3: this model has 0 to 2"):
        visualize.depthwise_kernels(model, 3)
    with pytest.raises(ValueError, match="no block -1"):
        visualize.feature_maps(model, image, -1)
    with pytest.raises(ValueError, match="class 5: this model's classes are 0 to 4"):
        visualize.class_activation_map(model, image, 5)
    with pytest.raises(
        ValueError, match=r"an image has the shape \(1, 9, 11, 3\), and the model takes \(9, 11, 3\)"
    ):
        visualize.class_activation_map(model, image[None])
    headless = keras_convmixer.ConvMixer(4, 1, 3, 2, input_shape=(9, 11, 3), include_top=False)
    assert visualize.feature_maps(headless, image).shape == (4, 5, 4)
    with pytest.raises(ValueError, match="has no head, and so no classes"):
        visualize.class_activation_map(headless, image)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="mine")
    with pytest.raises(ValueError, match="mine is not a ConvMixer of this package"):
        visualize.patch_embeddings(other)


def test_channels_first_gives_the_same(model, image):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolution on CPU")
    keras.config.set_image_data_format("channels_first")
    try:
        first = keras_convmixer.ConvMixer(12, 3, 3, 2, input_shape=(3, 9, 11), num_classes=5, dropout=0.5)
        first.set_weights(model.get_weights())
        turned = np.moveaxis(image, -1, 0)
        maps = [visualize.class_activation_map(first, turned, 1, block) for block in range(3)]
        features = visualize.feature_maps(first, turned)
        field = visualize.effective_receptive_field(first, [turned], 0)
        figure = visualize.plot_class_activation_maps(first, turned)
    finally:
        keras.config.set_image_data_format("channels_last")
    for block, found in enumerate(maps):
        np.testing.assert_allclose(found, visualize.class_activation_map(model, image, 1, block), atol=1e-4)
    np.testing.assert_allclose(features, visualize.feature_maps(model, image), atol=1e-5)
    np.testing.assert_allclose(field, visualize.effective_receptive_field(model, [image], 0), atol=1e-6)
    assert figure.axes[0].images[0].get_array().shape == (9, 11, 3)
