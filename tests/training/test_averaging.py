"""Averaged weights, and BatchNorm's statistics measured anew."""

import dataclasses
import re
import shutil

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import bundles, shipped
from keras_convmixer.cli import main
from keras_convmixer.data import fingerprints
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.model import ConvMixer
from keras_convmixer.parts import parts
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint

RECIPE = {
    "model": {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2, "input_size": [8, 8], "crop": 1.0},
    "augmentation": {"flip": 0.5},
    "training": {"epochs": 2, "batch_size": 256},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    keras_convmixer.train(Recipe.load("digits", RECIPE), folder, verbose=0)
    return folder


@pytest.fixture
def other(run, tmp_path):
    """A model like that of the run, with other weights, that knows other images."""
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    bundle = bundles.load(copy)
    draw = np.random.default_rng(0)
    bundle.model.set_weights([weight + draw.uniform(0, 1, weight.shape) for weight in bundle.model.get_weights()])
    bundles.save(bundle, copy)
    fingerprints.write(copy, np.array([7], np.uint64))
    return copy


def weights(path):
    return bundles.load(path).model.get_weights()


def test_weights_are_the_mean(run, other, tmp_path):
    made = keras_convmixer.average([run, other], tmp_path / "out", images=0)
    assert made.path == tmp_path / "out"
    for mean, ours, theirs in zip(weights(made.path), weights(run), weights(other), strict=True):
        np.testing.assert_allclose(mean, (ours + theirs) / 2, rtol=1e-6, atol=1e-7)
    known = set(fingerprints.read(made.path))
    assert known == {*fingerprints.read(run), 7}
    assert (made.path / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()


def test_statistics_are_those_of_training_batches(run, tmp_path):
    made = keras_convmixer.average([run], tmp_path / "out", images=600)  # nearest to two batches of 256
    recipe = Recipe.load(run / "recipe.yaml")
    images = keras_convmixer.data.datasets.open_dataset("digits", seed=recipe.seed).training()
    words = {"batch_size": 256, "seed": recipe.seed, "epochs": 2}
    stream = training_batches(images, made.preprocessing, recipe.augmentation, **words)
    model = bundles.load(run).model
    first = keras.Model(model.input, parts(model).patch_embedding.activation.output)
    batches = [np.asarray(first(pixels)) for pixels, _ in stream.take(2).as_numpy_iterator()]
    norm = parts(made.model).patch_embedding.norm
    np.testing.assert_allclose(norm.moving_mean, np.mean([b.mean((0, 1, 2)) for b in batches], 0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, np.mean([b.var((0, 1, 2)) for b in batches], 0), rtol=1e-3)
    assert norm.momentum == parts(model).patch_embedding.norm.momentum
    kept = [(ours, theirs) for ours, theirs in zip(made.model.trainable_variables, model.trainable_variables)]
    assert all(np.array_equal(ours, theirs) for ours, theirs in kept)


def test_a_model_with_lost_statistics_is_as_good_again(tmp_path):
    lost = tmp_path / "lost"
    shutil.copytree(shipped.folder("digits"), lost)
    before = keras_convmixer.evaluate(lost, verbose=0).top(1)
    bundle = bundles.load(lost)
    for variable in bundle.model.non_trainable_variables:
        variable.assign(np.random.default_rng(0).uniform(1, 2, variable.shape))
    bundles.save(bundle, lost)
    assert keras_convmixer.evaluate(lost, verbose=0).top(1) < 0.7
    keras_convmixer.average([lost], tmp_path / "found")
    assert keras_convmixer.evaluate(tmp_path / "found", verbose=0).top(1) > before - 0.02


def test_checkpoints_of_a_run(run, tmp_path, capsys):
    checkpoints = sorted((run / "checkpoints").glob("*.safetensors"))
    assert len(checkpoints) == 2
    assert main(["average", *map(str, checkpoints), "--out", str(tmp_path / "out"), "--images", "0"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out'}: the average of 2 models\n"
    last = keras_convmixer.average(checkpoints[1:], tmp_path / "last", images=256)
    for ours, theirs in zip(last.model.trainable_variables, bundles.load(run).model.trainable_variables):
        np.testing.assert_array_equal(ours, theirs)
    mean, final = (weights(path)[0] for path in (tmp_path / "out", run))
    assert not np.array_equal(mean, final)


def test_checkpoints_of_a_head_that_was_trained_alone(run, tmp_path):
    settings = {"model": RECIPE["model"] | {"weights": str(run), "dropout": 0.1}}
    settings["training"] = RECIPE["training"] | {"freeze_backbone": True, "cached_crops": 1}
    keras_convmixer.train(Recipe.load("digits", settings), tmp_path / "head", verbose=0)
    checkpoints = sorted((tmp_path / "head" / "checkpoints").glob("*.safetensors"))
    arrays = [checkpoint.read(path)[0] for path in checkpoints]
    first, second = [[one[key] for key in sorted(one) if re.match("model/.*head", key)] for one in arrays]
    keras_convmixer.average(checkpoints, tmp_path / "out", images=0)
    *backbone, kernel, bias = weights(tmp_path / "out")
    for found, ours, theirs in zip((kernel, bias), first, second, strict=True):
        np.testing.assert_allclose(found, (ours + theirs) / 2, rtol=1e-5, atol=1e-7)
        assert not np.array_equal(ours, theirs)
    for ours, theirs in zip(backbone, weights(run)):
        np.testing.assert_array_equal(ours, theirs)


def test_bad_input_is_one_line(run, other, tmp_path, capsys):
    def refused(*words):
        assert main(["average", *map(str, words), "--out", str(tmp_path / "out")]) == 1
        assert not (tmp_path / "out").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert main(["average", str(run), str(other), "--out", str(other), "--images", "0"]) == 1
    assert f"{other} holds a model or a run already" in capsys.readouterr().err
    assert "nothing is left to do" in refused(run, "--images", 0)
    assert "images 0 or more" in refused(run, "--images", -1)
    assert "no such model folder" in refused(run, tmp_path / "none")
    (other / "recipe.yaml").unlink()
    assert f"{other} has no recipe.yaml" in refused(other, run)
    bundle = bundles.load(other)
    bundles.save(dataclasses.replace(bundle, classes=bundle.classes[::-1]), other)
    assert f"{other} has another list of classes than {run}: they cannot be averaged" in refused(run, other)
    wider = ConvMixer(9, 1, 3, 2, input_shape=(8, 8, 3), num_classes=10, classifier_activation=None)
    bundles.save(bundles.Bundle(wider, Preprocessing((8, 8), 1.0), bundle.classes), other)
    assert f"{other} has another architecture" in refused(run, other)
    (checkpoint, _) = sorted((run / "checkpoints").glob("*.safetensors"))
    (other / "checkpoints" / checkpoint.name).write_bytes(checkpoint.read_bytes())
    assert "is not a checkpoint of the model in" in refused(other / "checkpoints" / checkpoint.name)
    (other / "checkpoints" / checkpoint.name).write_bytes(checkpoint.read_bytes()[:-1])
    assert "is not a checkpoint, or is damaged" in refused(other / "checkpoints" / checkpoint.name)
