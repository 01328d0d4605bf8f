import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file
from timm_layout import copy_into

import keras_convmixer
from keras_convmixer.parts import architecture

SMALL = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4, "num_classes": 5, "input_shape": (32, 32, 3)}
ORACLES = ["gelu_k9_p7", "relu_k7_p7", "gelu_k8_p2_even_kernel", "gelu_k5_p7_ragged_input", "gelu_k5_p2_gray"]


def images(shape=(32, 32, 3), count=2, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *shape)).astype("float32")


def predict(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def relative(ours, reference):
    return np.abs(ours - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("name", ORACLES)
def test_equals_timm(oracles, name):
    about = next(m for m in json.loads((oracles / "weights/index.json").read_text())["models"] if m["name"] == name)
    reference = np.load(oracles / "weights" / f"{name}.io.npz")
    arguments = {k: about[k] for k in ("dim", "depth", "kernel_size", "patch_size", "num_classes")}
    model = keras_convmixer.ConvMixer(
        **arguments,
        activation=about["act"],
        input_shape=(*about["size"], about.get("in_chans", 3)),
        include_preprocessing=False,
        classifier_activation=None,
    )
    copy_into(model, load_file(oracles / "weights" / f"{name}.safetensors"))
    outputs = [model.get_layer(f"block_{about['depth'] - 1}_pointwise_norm").output, model.get_layer("pool").output]
    features, pooled, logits = keras.Model(model.input, [*outputs, model.output]).predict(
        reference["input_nhwc"], verbose=0
    )
    assert relative(features, reference["features_nhwc"]) < 5e-6
    assert relative(pooled, reference["pooled"]) < 5e-6
    assert relative(logits, reference["logits"]) < 5e-6


def test_normalises_what_it_is_given():
    plain = keras_convmixer.ConvMixer(**SMALL, include_preprocessing=False)
    whole = keras_convmixer.ConvMixer(**SMALL, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    whole.set_weights(plain.get_weights())
    x = images()
    normalised = (x / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(predict(whole, x), predict(plain, normalised.astype("float32")), atol=1e-6)


def test_ends_in_probabilities_unless_told_otherwise():
    model = keras_convmixer.ConvMixer(**SMALL)
    logits = keras_convmixer.ConvMixer(**SMALL, classifier_activation=None)
    logits.set_weights(model.get_weights())
    probabilities = predict(model, images())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    exponentials = np.exp(predict(logits, images()))
    np.testing.assert_allclose(exponentials / exponentials.sum(axis=1, keepdims=True), probabilities, atol=1e-6)


@pytest.mark.parametrize("pooling,shape", [(None, (2, 8, 8, 8)), ("avg", (2, 8)), ("max", (2, 8))])
def test_without_its_top_gives_features(pooling, shape):
    model = keras_convmixer.ConvMixer(**SMALL, include_top=False, pooling=pooling)
    assert model(images()).shape == shape


def test_takes_any_size_where_none_is_given():
    model = keras_convmixer.ConvMixer(8, 1, 3, 4, input_shape=(None, None, 3), num_classes=5)
    assert model(images((40, 28, 3))).shape == (2, 5)


def test_starts_from_pytorchs_distributions():
    keras.utils.set_random_seed(0)
    model = keras_convmixer.ConvMixer(256, 1, 5, 4, num_classes=100, input_shape=(8, 8, 3))
    bounds = {
        "patch_embedding": 1 / np.sqrt(4 * 4 * 3),
        "block_0_depthwise": 1 / 5,
        "block_0_pointwise": 1 / np.sqrt(256),
        "head": 1 / np.sqrt(256),
    }
    for name, bound in bounds.items():
        for values in model.get_layer(name).get_weights():
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.9 * bound
            # A uniform distribution's standard deviation is its bound over the root of 3.
            assert abs(values.std() - bound / np.sqrt(3)) < 0.15 * bound
    norm = model.get_layer("block_0_depthwise_norm")
    assert (norm.epsilon, norm.momentum) == (1e-5, 0.9)


def test_stochastic_depth_drops_whole_branches_more_often_in_later_blocks():
    model = keras_convmixer.ConvMixer(8, 5, 3, 4, input_shape=(32, 32, 3), stochastic_depth=0.4)
    rates = [model.get_layer(f"block_{i}_drop").rate for i in range(1, 5)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4])
    last = keras.Model(
        model.input, [model.get_layer("block_4_add").output, model.get_layer("block_3_pointwise_norm").output]
    )
    added, shortcut = (keras.ops.convert_to_numpy(y) for y in last(images(count=200), training=True))
    dropped = [np.array_equal(a, s) for a, s in zip(added, shortcut)]
    assert 0.25 < np.mean(dropped) < 0.55


def test_dropout_acts_in_training_only():
    model = keras_convmixer.ConvMixer(**SMALL, dropout=0.5)
    x = images()
    np.testing.assert_array_equal(predict(model, x), predict(model, x))
    pooled = keras.Model(model.input, model.get_layer("dropout").output)(x, training=True)
    assert np.any(keras.ops.convert_to_numpy(pooled) == 0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_normalises_in_float32_whatever_the_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_convmixer.ConvMixer(**SMALL)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("normalization").compute_dtype == "float32"
    assert model.get_layer("block_0_pointwise").compute_dtype != "float32"
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"


def test_architecture_gives_the_arguments_back():
    arguments = {"dim": 8, "depth": 3, "kernel_size": 5, "patch_size": 2, "activation": "relu"}
    model = keras_convmixer.ConvMixer(
        **arguments, input_shape=(16, 16, 3), mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
    )
    found = architecture(model)
    assert {name: found[name] for name in arguments} == arguments
    np.testing.assert_allclose(found["mean"] + found["std"], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    with pytest.raises(ValueError, match="not a ConvMixer"):
        architecture(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))


@pytest.mark.parametrize("mean", [np.array([0.1, 0.2, 0.3]), np.float32(0.5), np.array([0.5]), np.array(0.5)])
def test_takes_arrays_as_its_normalisation(mean):
    model = keras_convmixer.ConvMixer(**SMALL, mean=mean, std=np.array([0.2, 0.3, 0.4]))
    np.testing.assert_allclose(architecture(model)["mean"], np.broadcast_to(mean, 3))


def test_takes_a_keras_tensor_as_its_images(tmp_path):
    image = keras.Input((32, 32, 3), name="photo")
    model = keras_convmixer.ConvMixer(**SMALL, input_tensor=image)
    plain = keras_convmixer.ConvMixer(**SMALL)
    plain.set_weights(model.get_weights())
    assert model.input is image
    np.testing.assert_array_equal(predict(model, images()), predict(plain, images()))

    plain.save(tmp_path / "plain.keras")
    flipped = keras.Input((32, 32, 3))
    arguments = SMALL | {"input_tensor": keras.ops.flip(flipped, axis=2), "weights": tmp_path / "plain.keras"}
    np.testing.assert_allclose(
        predict(keras_convmixer.ConvMixer(**arguments), images()), predict(plain, images()[:, :, ::-1]), rtol=1e-5
    )


def test_the_input_tensor_gives_the_input_shape():
    image = keras.Input((24, 20, 3))
    assert keras_convmixer.create_model("convmixer_tiny", input_tensor=image).input_shape == (None, 24, 20, 3)
    assert keras_convmixer.ConvMixer(8, 1, 3, 4, input_tensor=image).input_shape == (None, 24, 20, 3)
    with pytest.raises(ValueError, match=r"input_tensor has the shape \(24, 20, 3\), input_shape is \(32, 32, 3\)"):
        keras_convmixer.ConvMixer(**SMALL, input_tensor=image)
    with pytest.raises(TypeError, match="input_tensor must be a Keras tensor"):
        keras_convmixer.create_model("convmixer_tiny", input_tensor=images())


LOAD_ELSEWHERE = """
import sys
sys.modules["keras_convmixer"] = None  # importing it fails
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
np.save(sys.argv[2], keras.ops.convert_to_numpy(model(x)))
"""


def test_a_saved_model_loads_without_this_package(tmp_path):
    model = keras_convmixer.ConvMixer(**SMALL, stochastic_depth=0.2, dropout=0.1)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD_ELSEWHERE, tmp_path / "model.keras", tmp_path / "y.npy"]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), predict(model, images()), atol=1e-6)


def test_channels_first_computes_the_same():
    last = keras_convmixer.ConvMixer(**SMALL, mean=[0.5, 0.4, 0.3])
    # Rescaling looks at the setting each time it is called.
    normalised, probabilities = predict(last.get_layer("normalization"), images()), predict(last, images())
    transposed = np.transpose(images(), (0, 3, 1, 2))
    keras.config.set_image_data_format("channels_first")
    try:
        first = keras_convmixer.ConvMixer(**SMALL | {"input_shape": (3, 32, 32)}, mean=[0.5, 0.4, 0.3])
        first.set_weights(last.get_weights())
        found = predict(first.get_layer("normalization"), transposed)
        if keras.backend.backend() != "tensorflow":  # TensorFlow's CPU convolutions are channels-last alone
            np.testing.assert_allclose(predict(first, transposed), probabilities, atol=1e-5)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(found, np.transpose(normalised, (0, 3, 1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    "change,error,message",
    [
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"dim": -3}, ValueError, "dim must be at least 1"),
        ({"dim": "8"}, TypeError, "dim must be an integer"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        ({"patch_size": 0}, ValueError, "patch_size must be at least 1"),
        ({"patch_size": 33}, ValueError, "patch_size 33 is larger than the input"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
        ({"input_shape": (32, 32)}, ValueError, r"input_shape must be \(height, width, channels\)"),
        ({"input_shape": (32, 32, None)}, TypeError, "channels"),
        ({"pooling": "mean"}, ValueError, 'pooling must be None, "avg" or "max"'),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1"),
        ({"stochastic_depth": -0.1}, ValueError, "stochastic_depth must be"),
        ({"mean": [0.5, 0.5]}, ValueError, "mean has 2 values, but input_shape has 3 channels"),
        ({"std": 0}, ValueError, "std must be greater than 0"),
        ({"std": float("nan")}, ValueError, "^std must be a finite number, or one for each channel, got nan$"),
        ({"mean": [0.5, float("inf"), 0.5]}, ValueError, "^mean must be a finite number"),
        ({"mean": np.ones((3, 1))}, ValueError, "^mean must be a finite number"),
        ({"mean": "bright"}, ValueError, "^mean must be a finite number, .* got 'bright'$"),
        ({"kernel": 3}, TypeError, "kernel"),
    ],
)
def test_refuses_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        keras_convmixer.ConvMixer(**SMALL | change)
