"""Training that begins with smaller images: which epochs have which size, and that nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_convmixer
from keras_convmixer.recipes import Recipe, Training
from keras_convmixer.training.checkpoint import Position
from keras_convmixer.training.progressive_resizing import pieces, pixels
from keras_convmixer.training.sources import RecipeData
from keras_convmixer.training.training_model import training_model

STEPS = 7


@given(
    st.lists(st.tuples(st.integers(4, 31), st.integers(1, 5)), max_size=3),
    st.integers(1, 5),
    st.integers(0, 20),
    st.integers(0, STEPS - 1),
)
def test_what_remains_is_every_step_once_at_the_size_that_the_recipe_says(sizes, rest, epoch, step):
    epochs = sum(count for _, count in sizes) + rest
    epoch = min(epoch, epochs)
    training = Training(epochs=epochs, progressive_resizing=sizes)
    start = Position([{}] * epoch, 0 if epoch == epochs else step)
    found = [
        (e, s, piece.input_size)
        for piece in pieces(training, (32, 40), start)
        for e in range(piece.epoch, piece.end)
        for s in range(piece.step, STEPS)
    ]
    by_epoch = [(side, side) for side, count in sizes for _ in range(count)] + [(32, 40)] * rest
    everything = [(e, s, by_epoch[e]) for e in range(epochs) for s in range(STEPS)]
    assert found == everything[epoch * STEPS + start.step :]
    assert pixels(training, (32, 40)) == [height * width for height, width in by_epoch]


def recipe(*more):
    small = ["model.dim=16", "model.depth=1", "model.kernel_size=3", "model.patch_size=2", "training.epochs=3"]
    return Recipe.load("digits", [*small, "training.batch_size=128", *more])


def test_it_learns_from_small_images_and_then_from_its_own(tmp_path, monkeypatch):
    sizes, made = [], RecipeData.batches

    def spied(self, preprocessing, **arguments):
        sizes.append(preprocessing.input_size)
        batches = made(self, preprocessing, **arguments)
        assert batches.element_spec[0].shape[1:3] == preprocessing.input_size
        return batches

    monkeypatch.setattr(RecipeData, "batches", spied)
    resizing = recipe("training.progressive_resizing=[[4, 1]]", "training.batch_size=32")
    whole = keras_convmixer.train(resizing, tmp_path / "whole", verbose=0)
    assert sizes == [(4, 4), (8, 8)]
    assert whole.preprocessing.input_size == (8, 8)
    assert keras_convmixer.evaluate(whole, "digits", verbose=0).top(1) > 0.5


def test_the_clone_computes_the_same_on_images_of_any_size():
    plain = keras_convmixer.ConvMixer(8, 2, 5, 2, input_shape=(12, 12, 3), num_classes=4)
    small = keras_convmixer.ConvMixer(8, 2, 5, 2, input_shape=(6, 8, 3), num_classes=4)
    small.set_weights(plain.get_weights())
    clone = training_model(plain, any_size=True)
    for model, shape in ((plain, (2, 12, 12, 3)), (small, (2, 6, 8, 3))):
        images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        np.testing.assert_allclose(clone(images), model(images), atol=1e-5)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ("[[1, 1]]", "1 must be from 2, the size of a patch, to 8"),
        ("[[9, 1]]", "9 must be from 2, the size of a patch, to 8"),
        ("[[4, 3]]", "must leave some of the 3 epochs"),
    ],
)
def test_sizes_that_do_not_suit_the_model(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        keras_convmixer.train(recipe(f"training.progressive_resizing={sizes}"), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
