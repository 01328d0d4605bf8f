"""The batches that a training sees, and what it is measured on."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convmixer import Preprocessing
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.errors import UserError
from keras_convmixer.training.sources import OwnData, RecipeData, own_labels_in_use

PREPROCESSING = Preprocessing((8, 8), 1.0, "bilinear")


@pytest.fixture
def photos(tmp_path):
    """Five rare and fifteen common grey images, lighter to the right, as a folder."""
    for name, count in (("rare", 5), ("common", 15)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = np.tile(np.arange(8, dtype=np.uint8) + 10 * i, (8, 1))
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_classes_are_weighed_by_the_inverse_of_their_frequency(small_recipe, photos):
    settings = [f"data.source={photos}", "training.class_weights=true", "training.batch_size=16"]
    source = RecipeData(small_recipe(*settings))
    (_, labels, weights) = next(iter(source.batches(Preprocessing((8, 8), 1.0, "bilinear"), first_epoch=0)))
    classes = np.array(source.classes)[labels.numpy().argmax(1)]
    # Of 16 training images 4 are rare: each counts as much as three common ones, and all as much as 16.
    assert sorted(set(zip(classes.tolist(), weights.numpy().tolist()))) == [
        ("common", pytest.approx(2 / 3)),
        ("rare", pytest.approx(2.0)),
    ]


@pytest.mark.parametrize("flip", [0.5, "alternating"])
def test_a_recipes_batches_are_the_stream_of_what_it_says(small_recipe, photos, flip):
    settings = [f"data.source={photos}", "seed=5", "training.batch_size=4", "training.epochs=3"]
    recipe = small_recipe(
        *settings, "training.label_smoothing=0.2", f"augmentation.flip={flip}", "data.validation_fraction=0.4"
    )
    source = RecipeData(recipe)
    assert (source.classes, source.steps, len(source.images)) == (("common", "rare"), 3, 12)
    expected = training_batches(
        source.images,
        PREPROCESSING,
        recipe.augmentation,
        batch_size=4,
        seed=5,
        epochs=3,
        first_epoch=1,
        label_smoothing=0.2,
    )
    found = list(source.batches(PREPROCESSING, first_epoch=1).as_numpy_iterator())
    assert len(found) == 2 * 3
    for ours, theirs in zip(found, expected.as_numpy_iterator(), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    another = RecipeData(dataclasses.replace(recipe, seed=6)).images.names
    assert another != source.images.names


def test_images_that_cannot_be_read_are_counted_by_epoch_and_split(small_recipe, photos, capsys):
    source = RecipeData(small_recipe(f"data.source={photos}", "training.batch_size=4"))
    assert source.unreadable(0, []) == {}
    assert source.unreadable(0, [0, 2]) == {"val_unreadable": 2}
    assert source.unreadable(1, [2]) == {"val_unreadable": 1}
    assert capsys.readouterr().err.count("cannot be read") == 2
    held_out, training = source.dataset.held_out().names[0], source.images.names[0]
    (photos / training).write_text("no image")
    list(source.batches(PREPROCESSING, first_epoch=0))
    assert source.unreadable(0, []) == {"unreadable": 1, "val_unreadable": 2}
    assert held_out != training


def test_too_many_images_that_cannot_be_read_are_refused_unless_the_recipe_allows_them(small_recipe, photos):
    (photos / "rare" / "0.png").write_text("no image")
    settings = [f"data.source={photos}", "training.batch_size=4"]
    with pytest.raises(UserError, match="1 of 20 images cannot be read"):
        RecipeData(small_recipe(*settings))
    allowed = RecipeData(small_recipe(*settings, "data.allow_corrupt=true"))
    assert allowed.unreadable(0, []) == {"unreadable": 1}


def test_a_recipes_meter_measures_the_held_out_images(small_recipe, photos):
    source = RecipeData(small_recipe(f"data.source={photos}", "training.batch_size=3"))
    seen = []

    class Model(keras.Model):
        def call(self, x):
            tf.numpy_function(lambda n: seen.append(int(n)), [tf.shape(x)[0]], [])
            return tf.reduce_mean(x, (1, 2))[:, :2]

    for replicas, sizes in ((1, {3, 1}), (2, {3})):
        seen.clear()
        found = source.meter(PREPROCESSING, replicas).measure(Model(), source.classes)
        assert (found.split, set(seen)) == ("validation", sizes)
        np.testing.assert_array_equal(found.labels, source.dataset.held_out().labels)


def own(labels, weights=(), batch_size=4):
    images = np.arange(len(labels) * 12, dtype="uint8").reshape(-1, 2, 2, 3)
    return tf.data.Dataset.from_tensor_slices((images, labels, *weights)).batch(batch_size)


def test_own_labels_are_smoothed_whether_numbers_or_shares(small_recipe):
    recipe, numbers = small_recipe("training.label_smoothing=0.3"), np.array([0, 2, 1, 2, 0, 1])
    expected = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[numbers]
    for labels in (numbers, np.eye(3)[numbers], np.eye(3, dtype="int32")[numbers]):
        source = OwnData(recipe, (own(labels), own(labels)), ["a", "b", "c"])
        assert source.steps == 2
        (images, first), (_, second), (_, again) = source.batches(None, first_epoch=0).take(3).as_numpy_iterator()
        assert (images.dtype, images.shape, first.dtype) == (np.float32, (4, 2, 2, 3), np.float32)
        assert images[0].tolist() == np.arange(12.0).reshape(2, 2, 3).tolist()
        np.testing.assert_allclose([*first, *second], expected, rtol=1e-6)
        np.testing.assert_array_equal(again, first)


def test_own_weights_come_along(small_recipe):
    data = own(np.array([0, 1, 1]), [np.array([0.5, 2, 3], "float32")])
    source = OwnData(small_recipe(), [data, data], range(2))
    ((_, _, weights),) = source.batches(None, first_epoch=0).take(1).as_numpy_iterator()
    assert weights.tolist() == [0.5, 2, 3]
    assert source.classes == ("0", "1")
    assert source.unreadable(0, [1]) == {}


class Logits(keras.Model):
    """The first pixel's channels."""

    def call(self, x):
        return x[:, 0, 0]


@pytest.mark.parametrize("form", [lambda labels: labels, np.eye(3).__getitem__])
def test_own_held_out_images_are_measured(small_recipe, form):
    data = own(form(np.array([0, 2, 1, 2, 0, 1])))
    meter = OwnData(small_recipe(), (data, data), "abc").meter(PREPROCESSING, 1)
    found = meter.measure(Logits(), ("a", "b", "c"))
    assert (found.split, found.classes, list(meter.unread)) == ("held out", ("a", "b", "c"), [])
    assert found.labels.tolist() == [0, 2, 1, 2, 0, 1]
    np.testing.assert_array_equal(found.logits, np.arange(6)[:, None] * 12 + np.arange(3))


def test_what_own_data_must_be(small_recipe):
    data = own(np.arange(3))
    with pytest.raises(UserError, match="the held-out data is empty"):
        OwnData(small_recipe(), (data, data.take(0)), "abc").meter(PREPROCESSING, 1).measure(Logits(), "abc")
    with pytest.raises(UserError, match="known number of batches"):
        OwnData(small_recipe(), (data.take(0), data), "abc")
    with pytest.raises(UserError, match="give your own batches their weights"):
        OwnData(small_recipe("training.class_weights=true"), (data, data), "abc")
    for wrong in (data.map(lambda x, y: x), data.map(lambda x, y: (x, y, y, y)), data.map(lambda x, y: (y, x))):
        for pair in ((wrong, data), (data, wrong)):
            with pytest.raises(UserError, match="must give batches"):
                OwnData(small_recipe(), pair, "abc")
    for pair in ((data, [1]), (data, data, data), {data: 1, 2: 3}):
        with pytest.raises(UserError, match=r"a pair of tf\.data\.Dataset"):
            OwnData(small_recipe(), pair, "abc")


def test_own_labels_must_be_numbers_or_shares_of_the_classes(small_recipe):
    data, column = own(np.arange(3)), np.arange(3)[:, None]
    for labels in (column, column.astype("float32"), np.eye(4), np.arange(3.0), np.zeros((3, 1, 3))):
        for pair in ((own(labels), data), (data, own(labels))):
            with pytest.raises(
                UserError, match=r"labels that are class numbers \(n,\), .* or shares \(n, 3\) of the 3"
            ):
                OwnData(small_recipe(), pair, "abc")


def test_own_held_out_data_must_end(small_recipe):
    data = own(np.arange(3))
    with pytest.raises(UserError, match=r"the held-out data never ends: leave out \.repeat\(\)"):
        OwnData(small_recipe(), (data, data.repeat()), "abc")


@pytest.mark.parametrize("labels", [np.array([1, 2, 3]), np.array([0, -1, 2], "int8")])
def test_own_labels_of_no_class_are_noticed_where_they_come(small_recipe, labels):
    source = OwnData(small_recipe(), (own(labels), own(labels)), "abc")
    with pytest.raises(UserError, match="numbers of its classes, from 0 on: the held-out part has others"):
        source.meter(PREPROCESSING, 1).measure(Logits(), source.classes)
    trained = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    trained.compile("sgd", "mse")
    with (
        pytest.raises(UserError, match="numbers of its classes, from 0 on: the training part"),
        own_labels_in_use(),
    ):
        trained.fit(source.batches(None, first_epoch=0), steps_per_epoch=1, shuffle=False, verbose=0)
