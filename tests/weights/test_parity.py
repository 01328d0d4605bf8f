"""The published implementations' answers, from their files. Runs under whatever KERAS_BACKEND is set."""

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_convmixer.model import ConvMixer
from keras_convmixer.parts import features
from keras_convmixer.variants import convert_checkpoint
from keras_convmixer.weights.load import load_weights, open_state
from keras_convmixer.weights.state_dict import save_torch

MODELS = ["gelu_k9_p7", "relu_k7_p7", "gelu_k8_p2_even_kernel", "gelu_k5_p7_ragged_input", "gelu_k5_p2_gray"]


def convert(path, io, activation, **arguments):
    arguments = {"include_preprocessing": False, "classifier_activation": None} | arguments
    return convert_checkpoint(path, activation=activation, input_shape=io["input_nhwc"].shape[1:], **arguments)


def outputs(model, images):
    """The last block's map, its average over the image, and the logits."""
    whole = keras.Model(model.input, [layer.output for layer in model.layers[-3:]])
    return [keras.ops.convert_to_numpy(output) for output in whole(images, training=False)]


def assert_equal(found, expected):
    """Within 5e-6 of the largest value."""
    assert np.abs(found - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("suffix", ["safetensors", "state_dict.pth"])
@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_answers_as_timms(oracles, name, suffix):
    folder = oracles / "weights"
    (row,) = [row for row in json.loads((folder / "index.json").read_text())["models"] if row["name"] == name]
    io = np.load(folder / f"{name}.io.npz")
    model = convert(folder / f"{name}.{suffix}", io, row["act"])
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == row["params"]
    for found, key in zip(outputs(model, io["input_nhwc"]), ("features_nhwc", "pooled", "logits")):
        assert_equal(found, io[key])


@pytest.mark.parametrize(
    "file, ema",
    [
        ("original_sequential.pth.tar", False),
        ("original_sequential.pth.tar", True),
        ("original_sequential_ddp.pth.tar", False),
        ("original_sequential_ddp.pth.tar", True),
        ("original_sequential_legacy_format.pth", False),
    ],
)
def test_a_converted_model_answers_as_the_authors(oracles, file, ema):
    io = np.load(oracles / "weights/original_sequential.io.npz")
    model = convert(oracles / "weights" / file, io, "gelu", ema=ema)
    assert_equal(outputs(model, io["input_nhwc"])[-1], io["logits_ema" if ema else "logits"])


@pytest.mark.parametrize("name", MODELS)
def test_to_timms_layout_and_back_changes_no_bit(oracles, name, tmp_path):
    source = oracles / "weights" / f"{name}.safetensors"
    io = np.load(oracles / "weights" / f"{name}.io.npz")
    model = convert(source, io, "gelu")
    save_torch(model, tmp_path / "ours.safetensors")
    timms, ours = load_file(source), load_file(tmp_path / "ours.safetensors")
    assert ours.keys() == timms.keys()
    for key in timms:
        # The number of batches that PyTorch counted has no counterpart in Keras.
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(ours[key], timms[key])
            assert ours[key].dtype == timms[key].dtype
    again = convert(tmp_path / "ours.safetensors", io, "gelu")
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_kerass_own_files_load_too(oracles, suffix, tmp_path):
    io = np.load(oracles / "weights/relu_k7_p7.io.npz")
    model = convert(oracles / "weights/relu_k7_p7.safetensors", io, "relu")
    path = tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    again = ConvMixer(24, 4, 7, 7, num_classes=10, input_shape=(63, 77, 3), weights=path)
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_features_gives_every_blocks_output(oracles):
    io = np.load(oracles / "weights/relu_k7_p7.io.npz")
    model = convert(oracles / "weights/relu_k7_p7.safetensors", io, "relu")
    maps = features(model)(io["input_nhwc"], training=False)
    assert [tuple(block.shape) for block in maps] == [io["features_nhwc"].shape] * 4
    assert_equal(keras.ops.convert_to_numpy(maps[-1]), io["features_nhwc"])
    assert np.abs(keras.ops.convert_to_numpy(maps[0]) - io["features_nhwc"]).max() > 0.1


def test_a_model_without_its_top_takes_the_weights_of_one_with_a_head(oracles):
    io = np.load(oracles / "weights/gelu_k9_p7.io.npz")
    path = oracles / "weights/gelu_k9_p7.safetensors"
    backbone = convert(path, io, "gelu", include_top=False, pooling="avg")
    assert_equal(keras.ops.convert_to_numpy(backbone(io["input_nhwc"], training=False)), io["pooled"])


def test_channels_first_gives_the_same_features(oracles):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolution on CPU")
    io = np.load(oracles / "weights/gelu_k9_p7.io.npz")
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = ConvMixer(32, 3, 9, 7, include_top=False, include_preprocessing=False, input_shape=(3, 56, 56))
        load_weights(model, oracles / "weights/gelu_k9_p7.safetensors")
        images = np.moveaxis(io["input_nhwc"], -1, 1)
        found = keras.ops.convert_to_numpy(model(images, training=False))
    finally:
        keras.config.set_image_data_format(before)
    assert_equal(np.moveaxis(found, 1, -1), io["features_nhwc"])


def test_reading_strips_what_wrappers_put_before_names(oracles):
    names = []
    for file in ("original_sequential.pth.tar", "original_sequential_ddp.pth.tar"):
        with open_state(oracles / "weights" / file) as (state, _):
            names.append(list(state))
    assert names[0] == names[1]
