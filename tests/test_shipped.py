"""The trained models that come with the package: whole, found by name, and as good as their figures say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import shipped
from keras_convmixer.cli.main import main
from keras_convmixer.parts import parameter_count
from keras_convmixer.recipes import Recipe

ROOT = Path(__file__).parent.parent
VARIANTS = [name for name in shipped.names() if name in keras_convmixer.list_models()]
OF_CIFAR10 = [name for name in shipped.names() if name != "digits"]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of the shipped models that an installed package has with it."""
    copy = tmp_path / "keras_convmixer" / "saved_models"
    shutil.copytree(ROOT / "saved_models", copy)
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "keras_convmixer" / "shipped.py"))
    return copy


def test_every_file_of_a_model_has_its_sum():
    folder = ROOT / "saved_models"
    files = {str(path.relative_to(folder)) for path in folder.glob("*/*") if path.parent.name != "__pycache__"}
    assert {line.split("  ", 1)[1] for line in (folder / shipped.SUMS).read_text().splitlines()} == files
    assert sum((folder / name).stat().st_size for name in files) < 40e6


@pytest.mark.parametrize("name", shipped.names())
def test_its_parameters_are_counted_right(name):
    count = parameter_count(keras_convmixer.load(name).model)
    assert json.loads((shipped.folder(name) / "metrics.json").read_text())["parameters"] == count
    assert f"A ConvMixer with {count:,} parameters" in (ROOT / "saved_models" / name / "README.md").read_text()


@pytest.mark.parametrize("name", shipped.names())
def test_its_data_is_named_and_no_place_of_it(name):
    said = json.loads((shipped.folder(name) / "metrics.json").read_text()).get("data", {})
    assert Recipe.load(shipped.folder(name) / "recipe.yaml").data.source in ("cifar10", "digits")
    assert said.get("source") in ("cifar10", None)
    assert said.get("images", {}).keys() in ({"train", "test"}, set())


@pytest.mark.parametrize("name", shipped.names())
def test_a_name_is_its_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name, by_path = keras_convmixer.load(name), keras_convmixer.load(ROOT / "saved_models" / name)
    assert (by_name.classes, by_name.preprocessing) == (by_path.classes, by_path.preprocessing)
    for ours, theirs in zip(by_name.model.get_weights(), by_path.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_of_that_name_goes_before_it_and_no_other_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert keras_convmixer.load("digits").path == shipped.folder("digits")
    (tmp_path / "digits" / "recipe.yaml").write_text("seed: 0\n")
    with pytest.raises(FileNotFoundError, match=r"digits is not a model folder: it has no model\.keras"):
        keras_convmixer.load("digits")


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_are_those_of_the_folder(name):
    made = keras_convmixer.create_model(name, weights="cifar10", classifier_activation=None)
    image = np.random.default_rng(0).uniform(0, 255, (2, *made.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(made(image), keras_convmixer.load(name).model(image))
    headless = keras_convmixer.create_model(name, weights="cifar10", include_top=False)
    assert len(headless.get_weights()) == len(made.get_weights()) - 2
    for ours, theirs in zip(headless.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert keras_convmixer.create_model(name, weights="cifar10", num_classes=3).output_shape == (None, 3)


def test_a_training_starts_from_one_by_its_name(tmp_path):
    start = keras_convmixer.load("digits")
    still = ["optimizer.learning_rate=1e-9", "training.epochs=1", "training.precision=float32"]
    recipe = Recipe.load("digits", ["model.weights=digits", "model.dim=null", "seed=1", *still])
    run = keras_convmixer.train(recipe, tmp_path / "run", verbose=0)
    for ours, theirs in zip(run.model.trainable_weights, start.model.trainable_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    seen = set(np.load(tmp_path / "run" / "training_images.npy"))
    assert seen > set(np.load(start.path / "training_images.npy"))


def test_measuring_one_leaves_its_folder_as_it_was_shipped(elsewhere, tmp_path, capsys):
    before = sorted(elsewhere.rglob("*"))
    assert main(["evaluate", "digits"]) == 0
    assert sorted(elsewhere.rglob("*")) == before
    assert main(["evaluate", "digits", "--out", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "metrics.json").exists()


def test_other_variants_have_none():
    with pytest.raises(ValueError, match="no CIFAR-10 weights come with convmixer_768_32; they do with"):
        keras_convmixer.create_model("convmixer_768_32", weights="cifar10")


def test_a_changed_file_is_named(elsewhere):
    weights = elsewhere / "digits" / "model.keras"
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"{weights} is not the file that was shipped: its SHA-256 is"):
        keras_convmixer.load("digits")


def test_a_missing_file_is_named(elsewhere):
    (elsewhere / "digits" / "model_int8.tflite").unlink()
    assert keras_convmixer.load("digits").path == elsewhere / "digits"
    (elsewhere / "digits" / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no classes\.txt"):
        keras_convmixer.load("digits")


def test_an_installation_without_them_says_so(elsewhere):
    (elsewhere / shipped.SUMS).unlink()
    assert shipped.names() == []
    with pytest.raises(FileNotFoundError, match="no trained models with it"):
        shipped.folder("digits")
    with pytest.raises(FileNotFoundError, match="no such model folder, nor a known model"):
        keras_convmixer.load("digits")


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CIFAR10)
def test_the_figures_hold_to_the_last_image(name, cifar10_archive):
    said = json.loads((shipped.folder(name) / "metrics.json").read_text())
    found = keras_convmixer.evaluate(name, data=cifar10_archive)
    assert (len(found.labels), found.top(1)) == (10_000, said["top1"])
