import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from test_decode import decoded, encode, exif, graph, picture

from keras_convmixer.data import decode
from keras_convmixer.data.random_crop import random_resized_crop


def cropped(encoded, *seed, size=(16, 24), interpolation="random", **options):
    crop = graph(random_resized_crop, size=size, interpolation=interpolation, **options)
    return crop(tf.constant(encoded), tf.constant(seed)).numpy()


# In this picture a pixel's colour is its place, and at its own size "nearest" shows the box's corners exactly.
SIDE = 250
PLACES = encode(np.stack([*np.mgrid[:SIDE, :SIDE], np.zeros((SIDE, SIDE))], -1).astype(np.uint8), "PNG")


def boxes(count, **options):
    """(top, left, height, width) of the parts that `count` seeds cut out of PLACES."""

    def corners(seed):
        part = random_resized_crop(PLACES, (7, seed), (SIDE, SIDE), interpolation="nearest", **options)
        return tf.concat([part[0, 0, :2], part[-1, -1, :2] - part[0, 0, :2] + 1], axis=0)

    seeds = tf.data.Dataset.range(count, output_type=tf.int32)
    return np.stack(list(seeds.map(corners, tf.data.AUTOTUNE).as_numpy_iterator()))


def reference_box(rng, scale, ratio):
    """torchvision's loop over ten tries, for an image of SIDE × SIDE."""
    for _ in range(10):
        area = SIDE * SIDE * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        width, height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < width <= SIDE and 0 < height <= SIDE:
            return rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1), height, width
    return 0, 0, SIDE, SIDE


@pytest.mark.parametrize("scale, ratio", [((0.08, 1), (3 / 4, 4 / 3)), ((0.75, 1), (0.5, 2))])
def test_crops_are_distributed_as_torchvisions(scale, ratio):
    rng = np.random.default_rng(0)
    ours = boxes(800, scale=scale, ratio=ratio)
    theirs = np.array([reference_box(rng, scale, ratio) for _ in range(4000)])
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: np.log(box[:, 3] / box[:, 2]),
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    ):
        assert scipy.stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 0.001


@pytest.mark.parametrize(
    "shape, part",
    [((30, 200), (30, 40)), ((200, 30), (40, 30)), ((60, 60), (60, 60))],
)
def test_where_nothing_fits_the_largest_centre_part_is_taken(shape, part):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = encode(np.stack([y, x, 0 * x], -1).astype(np.uint8), "PNG")
    crop = random_resized_crop(image, (0, 0), part, scale=(4, 4), interpolation="nearest").numpy()
    top, left = ((whole - kept) // 2 for whole, kept in zip(shape, part))
    assert tuple(crop[0, 0, :2]) == (top, left)
    assert tuple(crop[-1, -1, :2]) == (top + part[0] - 1, left + part[1] - 1)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "random"])
def test_a_crop_is_a_function_of_its_seed(interpolation):
    image = encode(picture(), "JPEG")
    first, again, other = (cropped(image, 3, seed, interpolation=interpolation) for seed in (0, 0, 1))
    assert first.shape == (16, 24, 3)
    assert 0 <= first.min() <= first.max() <= 255
    np.testing.assert_array_equal(first, np.round(first))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_interpolation_is_each_of_the_two_half_the_time():
    image = encode(picture(), "PNG")

    def which(seed):
        random, bilinear, bicubic = (
            random_resized_crop(image, (5, seed), (16, 16), interpolation=name)
            for name in ("random", "bilinear", "bicubic")
        )
        return tf.reduce_all(random == bilinear), tf.reduce_all(random == bicubic)

    bilinear, bicubic = map(np.array, zip(*tf.data.Dataset.range(150, output_type=tf.int32).map(which)))
    assert np.all(bilinear | bicubic)
    assert 55 < np.sum(bilinear & ~bicubic) < 95


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_only_in_the_crop_gives_the_same_as_decoded_whole(orientation):
    encoded = encode(picture(90, 130), "JPEG", exif=exif(orientation))
    whole = encode(decoded(encoded), "PNG")
    for seed in range(5):
        # The colour of the crop's outermost pixels is interpolated without their neighbours outside.
        difference = np.abs(cropped(encoded, 1, seed) - cropped(whole, 1, seed))
        assert np.mean(difference) < 0.1
        assert np.max(difference) <= 5


@pytest.mark.parametrize("orientation, size", zip(range(1, 9), itertools.cycle([(8, 12), (20, 15), (45, 45)])))
def test_scaled_decoding_shows_the_same_part(orientation, size):
    """Of sides that 8 does not divide, at several scales. A part that is a pixel off differs by more."""
    y, x = np.mgrid[:203, :331]
    image = np.stack([127 + 120 * np.sin((a * x + b * y) / 70) for a, b in ((1, 0), (0, 1), (1, 1))], -1)
    encoded = encode(image.astype(np.uint8), "JPEG", exif=exif(orientation), quality=95)
    for seed in range(4):
        full, scaled = (
            cropped(encoded, 2, seed, size=size, scale=(0.3, 1), scaled_decoding=asked) for asked in (False, True)
        )
        assert np.mean(np.abs(full - scaled)) < 0.6
        assert np.max(np.abs(full - scaled)) <= 5


def test_scaled_decoding_leaves_alone_what_is_not_much_larger_or_no_jpeg():
    for encoded, size in (
        (encode(picture(90, 130), "JPEG"), (25, 35)),
        (encode(picture(203, 331), "PNG"), (8, 12)),
    ):
        np.testing.assert_array_equal(
            cropped(encoded, 1, 0, size=size, scaled_decoding=True), cropped(encoded, 1, 0, size=size)
        )


def test_scaled_decoding_reads_fewer_pixels(monkeypatch):
    read, resample = [], decode.resample
    monkeypatch.setattr(
        decode, "resample", lambda image, *args: (read.append(image.shape), resample(image, *args))[1]
    )
    encoded = encode(picture(400, 600), "JPEG")
    for size in (101, 100, 50, 25, 10):
        random_resized_crop(encoded, (0, 0), (size, size), (1, 1), (1.5, 1.5), "bilinear", scaled_decoding=True)
    assert [tuple(shape)[:2] for shape in read] == [(400, 600), (200, 300), (100, 150), (50, 75), (50, 75)]
