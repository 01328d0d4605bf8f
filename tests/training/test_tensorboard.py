"""What TensorBoard shows is the training's own, and the training does not notice."""

import csv
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.training.sources import RecipeData

SETTINGS = ["model.dim=8", "model.depth=2", "training.epochs=3", "training.batch_size=256", "training.ema=0.9"]
SETTINGS += ["augmentation.mixup=0.5", "training.progressive_resizing=[[6,1]]"]


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def pictures(folder, name):
    """By epoch, what is shown under a name: uint8 `(height, width, 3)`."""
    shown = {}
    for event in events(folder / "logs" / "images").Tensors(name):
        _, _, png = tensor_util.make_ndarray(event.tensor_proto)
        (folder / "shown.png").write_bytes(png)
        shown[event.step] = np.asarray(Image.open(folder / "shown.png"))
    return shown


def tiles(picture, side, zoom):
    """The first of a mosaic's tiles, as far as whole rows go: `(n, side, side, 3)`."""
    step = side * zoom + max(2, side * zoom // 14)
    places = [(y, x) for y in range(0, len(picture), step) for x in range(0, picture.shape[1], step)]
    return np.stack([picture[y : y + side * zoom : zoom, x : x + side * zoom : zoom] for y, x in places])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    keras_convmixer.train(Recipe.load("digits", SETTINGS), folder, verbose=0)
    return folder


def test_the_images_are_those_that_each_epoch_began_with(run):
    source = RecipeData(Recipe.load(run / "recipe.yaml"))
    shown = pictures(run, "augmented_images")
    preprocessing = keras_convmixer.load(run).preprocessing
    assert preprocessing.input_size == (8, 8)
    assert sorted(shown) == [0, 1, 2]
    for epoch, side, zoom in ((0, 6, 7), (1, 8, 5), (2, 8, 5)):
        size = keras_convmixer.Preprocessing((side, side), preprocessing.crop, preprocessing.interpolation)
        pixels, _ = next(source.batches(size, first_epoch=epoch).as_numpy_iterator())
        found = tiles(shown[epoch], side, zoom)
        np.testing.assert_array_equal(found, pixels[:16].clip(0, 255).round())
        assert found.std() > 20


def test_the_kernels_are_those_of_the_model_that_is_saved(run):
    model = keras.models.load_model(run / "model.keras")
    for block in (0, 1):
        shown = pictures(run, f"depthwise_kernels/block_{block}")
        assert sorted(shown) == [0, 1, 2]
        assert not np.array_equal(shown[1], shown[2])
        kernels = model.get_layer(f"block_{block}_depthwise").kernel.numpy()[..., 0].transpose(2, 0, 1)
        largest = np.abs(kernels).max(axis=(1, 2), keepdims=True)
        expected = 127.5 * (1 + kernels / largest)
        found = tiles(shown[2], 5, 8)
        np.testing.assert_allclose(found[:8, ..., 0], expected, atol=0.51)
        assert (found[8] == 255).all()  # eight kernels leave a place of nine


def test_the_figures_are_those_of_history(run):
    rows = list(csv.DictReader((run / "history.csv").open()))
    train, held_out = (events(run / "logs" / part) for part in ("train", "validation"))
    names = {"epoch_loss": "loss", "epoch_accuracy": "accuracy", "epoch_learning_rate": "learning_rate"}
    of_held_out = {"epoch_loss": "val_loss", "epoch_accuracy": "val_accuracy"}
    for found, columns in ((train, names), (held_out, of_held_out)):
        for tag, column in columns.items():
            shown = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in found.Tensors(tag)}
            expected = {int(row["epoch"]) - 1: float(row[column]) for row in rows}
            assert shown == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_the_training_ends_in_the_same_bits_with_and_without_pictures(tmp_path):
    code = """
import hashlib, pathlib, sys
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)  # without which no two runs on a CPU are alike
tf.config.experimental.enable_op_determinism()
import keras_convmixer
from keras_convmixer.training.tensorboard import Pictures

recipe = keras_convmixer.Recipe.load("digits", sys.argv[2:])
for name in ("with", "without"):
    weights = keras_convmixer.train(recipe, pathlib.Path(sys.argv[1]) / name, verbose=0).model.get_weights()
    print(hashlib.sha1(b"".join(weight.tobytes() for weight in weights)).hexdigest())
    Pictures.on_epoch_end = lambda *_: None
"""
    settings = [*SETTINGS, "model.stochastic_depth=0.3", "model.dropout=0.1", "augmentation.flip=0.5"]
    words = [sys.executable, "-c", code, str(tmp_path), *settings]
    hashes = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]
    assert "augmented_images" in events(tmp_path / "with" / "logs" / "images").Tags()["tensors"]
    assert not events(tmp_path / "without" / "logs" / "images").Tags()["tensors"]


def test_of_batches_of_ones_own_there_are_kernels_alone(small_recipe, tmp_path):
    """And of many epochs ten, the first and the last among them."""
    digits = load_digits()
    images = np.repeat((digits.images[:64, ..., None] * 255 / 16).round(), 3, axis=-1).astype("float32")
    own = tf.data.Dataset.from_tensor_slices((images, digits.target[:64])).batch(32)
    recipe = small_recipe("training.epochs=19")
    keras_convmixer.train(recipe, tmp_path, data=(own, own), classes=list("0123456789"), verbose=0)
    assert events(tmp_path / "logs" / "images").Tags()["tensors"] == ["depthwise_kernels/block_0"]
    assert sorted(pictures(tmp_path, "depthwise_kernels/block_0")) == list(range(0, 19, 2))
