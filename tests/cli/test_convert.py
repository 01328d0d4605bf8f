"""`convmixer convert`."""

import json
import os
import shutil

import numpy as np
import pytest

from keras_convmixer import evaluate, list_models, load, shipped
from keras_convmixer.cli import main
from keras_convmixer.variants import get_variant


def test_convert_goes_both_ways(oracles, run, tmp_path, capsys):
    source = oracles / "weights" / "gelu_k9_p7.state_dict.pth"
    keras_file = tmp_path / "model.keras"
    assert main(["convert", str(source), "--out", str(keras_file), "--activation", "gelu"]) == 0
    (tmp_path / "names").write_text("".join(f"class {i}\n" for i in range(11)))
    arguments = ["--activation", "gelu", "--classes", str(tmp_path / "names")]
    assert main(["convert", str(source), "--out", str(tmp_path / "folder"), *arguments]) == 0
    back = ["convert", str(tmp_path / "folder"), "--out", str(tmp_path / "back.safetensors")]
    for option in (["--activation", "relu"], ["--input-size", "8", "8"], ["--ema"]):
        assert main([*back, *option]) == 1
        assert f"{option[0]} is not for back.safetensors" in capsys.readouterr().err
    assert main(back) == 0
    again = tmp_path / "again.keras"
    assert main(["convert", str(tmp_path / "back.safetensors"), "--out", str(again), "--activation", "gelu"]) == 0

    import keras

    first, second = (keras.saving.load_model(path) for path in (keras_file, again))
    for a, b in zip(first.get_weights(), second.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name", ["gelu_k9_p7", "relu_k7_p7", "gelu_k8_p2_even_kernel", "gelu_k5_p7_ragged_input", "gelu_k5_p2_gray"]
)
def test_a_converted_file_answers_as_timm(oracles, name, tmp_path, capsys):
    import keras

    folder = oracles / "weights"
    (about,) = [row for row in json.loads((folder / "index.json").read_text())["models"] if row["name"] == name]
    io = np.load(folder / f"{name}.io.npz")
    height, width, channels = io["input_nhwc"].shape[1:]
    mean, std = ([0.5, 0.4, 0.3][:channels], [0.2, 0.25, 0.3][:channels])
    words = ["--activation", about["act"], "--input-size", str(height), str(width)]
    words += ["--mean", *map(str, mean), "--std", *map(str, std)]
    out = tmp_path / "model.keras"
    assert main(["convert", str(folder / f"{name}.state_dict.pth"), "--out", str(out), *words]) == 0
    model = keras.saving.load_model(out)
    images = 255 * (io["input_nhwc"] * np.float32(std) + np.float32(mean))
    exponentials = np.exp(io["logits"] - io["logits"].max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=2e-5)


@pytest.mark.parametrize("words", [[], ["--ema"]])
@pytest.mark.parametrize("name", ["original_sequential.pth.tar", "original_sequential_ddp.pth.tar"])
def test_the_authors_files_are_converted(oracles, name, words, tmp_path, capsys):
    import keras

    folder, out = oracles / "weights", tmp_path / "folder"
    io = np.load(folder / "original_sequential.io.npz")
    (tmp_path / "names").write_text("".join(f"class {i}\n" for i in range(io["logits"].shape[1])))
    height, width, _ = io["input_nhwc"].shape[1:]
    words = [*words, "--activation", "gelu", "--classes", str(tmp_path / "names"), "--std", "0.2", "0.2", "0.2"]
    words += ["--input-size", str(height), str(width)]
    assert main(["convert", str(folder / name), "--out", str(out), *words]) == 0
    preprocessing = json.loads((out / "preprocessing.json").read_text())
    assert preprocessing["input_size"] == [height, width]
    assert preprocessing["std"] == [0.2, 0.2, 0.2]
    assert preprocessing["mean"] == [0.485, 0.456, 0.406]
    images = 255 * (io["input_nhwc"] * np.float32(preprocessing["std"]) + np.float32(preprocessing["mean"]))
    logits = keras.saving.load_model(out / "model.keras").predict(images, verbose=0)
    expected = io["logits_ema" if "--ema" in words else "logits"]
    assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["model.keras", "recipe.yaml"])
def test_a_folder_that_holds_a_model_or_a_run_is_left_as_it_is(oracles, name, tmp_path, capsys):
    source, out = oracles / "weights" / "gelu_k9_p7.state_dict.pth", tmp_path / "run"
    out.mkdir()
    (out / name).write_text("trained")
    assert main(["convert", str(source), "--out", str(out), "--activation", "gelu"]) == 1
    assert capsys.readouterr().err == f"convmixer: {out} holds a model or a run already: give --out a new folder\n"
    assert [path.read_text() for path in out.iterdir()] == ["trained"]


def test_a_shipped_model_is_converted_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = min(set(shipped.names()) & set(list_models()), key=lambda name: get_variant(name).parameters)
    assert main(["convert", name, "--out", "model.keras"]) == 0

    import keras

    converted, own = keras.saving.load_model("model.keras").get_weights(), load(name).model.get_weights()
    for ours, theirs in zip(converted, own, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_grey_or_headless_checkpoint_becomes_no_model_folder(oracles, tmp_path, capsys):
    source = oracles / "weights" / "gelu_k5_p2_gray.safetensors"
    assert main(["convert", str(source), "--out", str(tmp_path / "folder"), "--activation", "gelu"]) == 1
    assert "takes 1 channels and has a head: only a .keras file holds such a model" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


def test_a_keras_model_keeps_its_activation_and_preprocessing(tmp_path, capsys):
    from keras_convmixer import Bundle, ConvMixer, Preprocessing, bundles
    from keras_convmixer.parts import architecture

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    model = ConvMixer(32, 2, 3, 4, activation="relu", mean=mean, std=std, input_shape=(24, 20, 3), num_classes=3)
    images = Preprocessing((24, 20), 0.5, "nearest", mean, std)
    bundles.save(Bundle(model, images, ("x", "y", "z")), tmp_path / "run")
    for out in ("a.keras", "folder", "larger"):
        words = ["--input-size", "28", "36"] if out == "larger" else []
        assert main(["convert", str(tmp_path / "run"), "--out", str(tmp_path / out), *words]) == 0
    for out, size in (("folder", [24, 20]), ("larger", [28, 36])):
        found = bundles.load(tmp_path / out)
        assert found.classes == ("x", "y", "z")
        assert found.preprocessing == Preprocessing(size, 0.5, "nearest", mean, std)
    for given in ("a.keras", "larger/model.keras"):
        found = architecture(bundles.load(tmp_path / given, ["x", "y", "z"]).model)
        assert found["activation"] == "relu"
        np.testing.assert_allclose(found["mean"], mean)
    assert "activation" not in capsys.readouterr().err


def test_what_a_run_has_learned_from_goes_with_its_weights(run, tmp_path, capsys):
    for words in ([], ["--activation", "relu"]):
        out = tmp_path / f"converted{len(words)}"
        assert main(["convert", str(run), "--out", str(out), *words]) == 0
        assert evaluate(out, verbose=0).split == "validation"
        assert evaluate(out, split="all", verbose=0).trained_on == 1438
        assert evaluate(out, "digits", verbose=0).trained_on == 0


def test_the_model_of_a_folder_is_not_replaced_alone(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    before = (tmp_path / "run" / "model.keras").read_bytes()
    assert main(["convert", str(run), "--activation", "relu", "--out", str(tmp_path / "run" / "model.keras")]) == 1
    assert "is a model folder, whose other files would not be the new model's" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.keras").read_bytes() == before


def test_a_home_is_found(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["convert", str(run), "--out", "~/converted"]) == 0
    assert main(["convert", "~/converted", "--out", "~/model.keras"]) == 0
    assert main(["average", "~/converted", "--out", "~/averaged", "--images", "32"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"converted", "model.keras", "averaged"}


def test_class_names_are_for_a_folder(run, tmp_path, capsys):
    words = ["convert", str(run), "--classes", str(tmp_path / "names"), "--out", str(tmp_path / "model.keras")]
    assert main(words) == 1
    assert "--classes is for a folder: model.keras holds no class names" in capsys.readouterr().err
    assert not (tmp_path / "model.keras").exists()


def test_a_model_without_normalisation_gets_one(tmp_path):
    from keras_convmixer import ConvMixer, Preprocessing

    model = ConvMixer(8, 1, 3, 4, include_preprocessing=False, input_shape=(8, 8, 3), num_classes=3)
    model.save(tmp_path / "bare.keras")
    words = ["convert", str(tmp_path / "bare.keras"), "--out", str(tmp_path / "model.keras")]
    assert main([*words, "--mean", "0.1", "0.2", "0.3", "--std", "0.4", "0.5", "0.6"]) == 0
    found = load(tmp_path / "model.keras", ["x", "y", "z"])
    assert found.preprocessing == Preprocessing((8, 8), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    normalised = (images / 255 - np.float32([0.1, 0.2, 0.3])) / np.float32([0.4, 0.5, 0.6])
    logits = found.model.predict(images, verbose=0)
    expected = model.predict(normalised, verbose=0)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax, expected, rtol=1e-4)


def test_a_hostile_checkpoint_is_refused(oracles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = str(oracles / "weights" / "hostile.pth.tar")
    assert main(["convert", source, "--out", "model.keras"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == []
