"""The augmentation layers: pure functions of the seeds, with the reference implementations' numbers."""

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convmixer.data.augment import (
    ColorJitter,
    Cutout,
    MixUpCutMix,
    RandAugment,
    RandomErasing,
    RandomFlip,
    RandomTranslation,
    pixels,
)

LAYERS = {
    "flip": lambda: RandomFlip(),
    "timm": lambda: RandAugment("rand-m9-mstd0.5-inc1"),
    "torchvision": lambda: RandAugment("torchvision-n2-m12"),
    "jitter": lambda: ColorJitter(0.4, 0.4, 0.4, 0.1),
    "noise": lambda: RandomErasing(0.8),
    "zero": lambda: RandomErasing(0.8, mode="zero"),
    "cutout": lambda: Cutout(7),
    "translation": lambda: RandomTranslation(3),
    "mix": lambda: MixUpCutMix(),
}


def images(count, size=24):
    return np.random.default_rng(5).integers(0, 256, (count, size, size + 8, 3)).astype("float32")


def examples(count, size=24):
    """`count` examples, each with its own seeds."""
    seeds = np.stack([np.full(count, 11), np.arange(count)], 1).astype("int32")
    labels = np.eye(4, dtype="float32")[np.arange(count) % 4]
    return {"images": images(count, size), "labels": labels, "seeds": seeds}


def mapped(layers, count, calls, batch=None):
    """The examples through the layers in tf.data; single images, or batches."""
    data = tf.data.Dataset.from_tensor_slices(examples(count))
    data = data if batch is None else data.batch(batch)
    data = data.map(keras_cv.layers.Augmenter(layers), num_parallel_calls=calls)
    out = list(data.as_numpy_iterator())
    join = np.stack if batch is None else np.concatenate
    return {name: join([one[name] for one in out]) for name in out[0]}


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "mix"])
def test_the_same_seeds_give_the_same_images_however_they_are_processed(name):
    layer = LAYERS[name]()
    one_by_one = mapped([layer], 12, calls=1)
    again = mapped([layer], 12, calls=4)
    batched = mapped([layer], 12, calls=2, batch=5)
    for key in ("images", "labels", "seeds"):
        np.testing.assert_array_equal(one_by_one[key], again[key])
        np.testing.assert_allclose(one_by_one[key], batched[key], atol=1e-4)
    source = examples(12)
    changed, kept = ("labels", "images") if name == "smoothing" else ("images", "labels")
    assert not np.array_equal(one_by_one[changed], source[changed])
    np.testing.assert_array_equal(one_by_one[kept], source[kept])
    np.testing.assert_array_equal(one_by_one["seeds"], source["seeds"])


@pytest.mark.parametrize("name", LAYERS)
def test_a_configuration_makes_the_layer_again(name):
    layer = LAYERS[name]()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    inputs = examples(4)
    for a, b in zip(layer(inputs).values(), again(inputs).values()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_a_mixed_precision_policy_does_not_touch_the_images(name):
    inputs = examples(2)
    expected = LAYERS[name]()(inputs)["images"]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = LAYERS[name]()(inputs)["images"]
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(found, expected)


def test_layers_and_salts_draw_different_bits():
    seeds = tf.constant([1, 2])
    layers = [RandomFlip(), RandomFlip(salt=1), RandAugment(), RandomErasing()]
    drawn = {float(layer.uniform(seeds, draw)) for layer in layers for draw in ("a", "b")}
    assert len(drawn) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomFlip(1.5),
        lambda: RandomErasing(-0.1),
        lambda: RandomErasing(area=(0.5, 0.2)),
        lambda: RandomErasing(area=(0, 0.2)),
        lambda: RandomErasing(aspect=(2, 1)),
        lambda: RandomErasing(mode="noise"),
        lambda: ColorJitter(brightness=-1),
        lambda: ColorJitter(hue=0.6),
        lambda: MixUpCutMix(0, 0),
        lambda: MixUpCutMix(-1, 1),
        lambda: MixUpCutMix(switch_probability=2),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_what_cannot_be_augmented_is_refused():
    inputs = examples(4)
    with pytest.raises(ValueError, match='"seeds"'):
        RandomFlip()(inputs["images"])
    with pytest.raises(ValueError, match="takes a dictionary"):
        MixUpCutMix()({"images": inputs["images"], "seeds": inputs["seeds"]})
    with pytest.raises(ValueError, match="on a batch"):
        MixUpCutMix()({name: value[0] for name, value in inputs.items()})
    with pytest.raises(ValueError, match="known size"):
        tf.data.Dataset.from_tensors(inputs).map(
            lambda x: RandomFlip()(
                {
                    **x,
                    "images": tf.ensure_shape(
                        tf.raw_ops.PlaceholderWithDefault(input=x["images"], shape=[4, None, None, 3]),
                        [4, None, None, 3],
                    ),
                }
            )
        )


def test_half_of_the_images_are_mirrored():
    source, out = examples(2000, 4), None
    data = tf.data.Dataset.from_tensor_slices(source).map(RandomFlip(), num_parallel_calls=2).batch(2000)
    out = next(iter(data))["images"].numpy()
    mirrored = (out == source["images"][:, :, ::-1]).all((1, 2, 3))
    assert ((out == source["images"]).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 0.04


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.0, 0.02, 0.5])
def test_the_hue_turns_as_in_pillow(turn):
    image = images(1, 96)[0]
    h, s, v = Image.fromarray(image.astype("uint8")).convert("HSV").split()
    h = Image.fromarray((np.asarray(h).astype(int) + int(turn * 255)).astype("uint8"))
    expected = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB")).astype("float32")
    difference = np.abs(pixels.hue(tf.constant(image), tf.constant(turn)).numpy() - expected)
    assert (difference <= 1).mean() > 0.99
    assert difference.mean() < 0.2


def test_jitter_stays_within_its_range_and_changes_the_order():
    grey = np.full((300, 4, 4, 3), 100, "float32")
    seeds = np.stack([np.arange(300), np.arange(300)], 1).astype("int32")
    data = tf.data.Dataset.from_tensor_slices({"images": grey, "seeds": seeds})
    out = np.stack([x["images"] for x in data.map(ColorJitter(brightness=0.2)).as_numpy_iterator()])
    value = out[:, 0, 0, 0]
    assert (out == value[:, None, None, None]).all()
    assert value.min() in (80, 81)
    assert value.max() in (118, 119)
    assert abs(value.mean() - 99.5) < 2
    # A black-and-white image, brighter and then of less contrast or the other way round, comes out differently.
    board = np.zeros((300, 2, 2, 3), "float32")
    board[:, 0] = 255
    data = tf.data.Dataset.from_tensor_slices({"images": board, "seeds": seeds})
    both = np.stack([x["images"] for x in data.map(ColorJitter(0.9, 0.9)).as_numpy_iterator()])
    assert len(np.unique(both.reshape(300, -1), axis=0)) > 150


def erased(layer, count, size=96):
    """Boxes (height, width, top, left) of the rectangles that the layer erases; height 0 where there is none."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([tf.cast(i, tf.int32), 3]))
    return next(iter(seeds.map(lambda s: layer.draw(s, (size, size)), num_parallel_calls=2).batch(count))).numpy()


def test_erasing_draws_its_areas_and_aspects_evenly():
    square = erased(RandomErasing(area=(0.02, 1 / 3), aspect=(1, 1)), 3000)
    area = np.sort(square[:, 2] * square[:, 3] / 96**2)
    assert (square[:, 2] == square[:, 3]).all()
    assert np.abs(area - np.linspace(0.02, 1 / 3, 3000)).max() < 0.02
    small = erased(RandomErasing(area=(0.05, 0.05)), 3000)
    aspect = np.sort(np.log(small[:, 2] / small[:, 3]))
    assert np.abs(aspect - np.linspace(np.log(0.3), -np.log(0.3), 3000)).max() < 0.15
    for first, side in (0, 2), (1, 3):
        free = 96 - small[:, side]
        assert (small[:, first] >= 0).all()
        assert (small[:, first] <= free).all()
        assert abs((small[:, first] / free).mean() - 0.5) < 0.02


def test_a_rectangle_that_never_fits_is_not_erased():
    assert (erased(RandomErasing(area=(1, 1)), 50)[:, 2:] == 0).all()
    layer, inputs = RandomErasing(1.0, area=(1, 1)), examples(3)
    np.testing.assert_array_equal(layer(inputs)["images"], inputs["images"])


def test_a_quarter_of_the_images_is_erased_with_what_normalises_to_noise():
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    source = {"images": np.full((2000, 12, 12, 3), -1000, "float32"), "seeds": examples(2000, 1)["seeds"]}
    layer = RandomErasing(0.25, mean=mean, std=std)
    data = tf.data.Dataset.from_tensor_slices(source).map(layer, num_parallel_calls=2).batch(2000)
    out = next(iter(data))["images"].numpy()
    hole = out[..., 0] > -900
    assert abs(hole.any((1, 2)).mean() - 0.25) < 0.04
    noise = (out[hole] / 255 - mean) / std
    assert len(noise) > 5000
    assert np.abs(noise.mean(0)).max() < 0.05
    assert np.abs(noise.std(0) - 1).max() < 0.05
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.05


def test_zero_erasing_leaves_the_colour_that_normalises_to_zero():
    mean = (0.25, 0.5, 0.75)
    inputs = examples(4)
    out = RandomErasing(1.0, mode="zero", mean=mean)(inputs)["images"].numpy()
    changed = (out != inputs["images"]).any(-1)
    assert changed.any((1, 2)).all()
    np.testing.assert_allclose(out[changed], np.tile(255 * np.array(mean), (changed.sum(), 1)), rtol=1e-6)
