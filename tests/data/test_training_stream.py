import dataclasses
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_convmixer import Preprocessing
from keras_convmixer.data import datasets, training_stream
from keras_convmixer.data.encoded_images import in_memory
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.training_image import image_maker
from keras_convmixer.data.training_stream import first_images, steps_per_epoch, training_batches
from keras_convmixer.recipes import Augmentation

PREPROCESSING = Preprocessing((12, 12), 1.0, "bilinear")
EVERYTHING = Augmentation(
    crop_scale=(0.5, 1.0),
    flip=0.5,
    rand_augment="torchvision-n2-m12",
    color_jitter=0.2,
    mixup=0.5,
    cutmix=0.5,
    random_erasing=0.5,
)


@pytest.fixture(scope="module")
def digits():
    return datasets.open_dataset("digits").training().subset(range(100))


def batches(images, augmentation=EVERYTHING, batch_size=32, seed=1, epochs=2, **arguments):
    stream = training_batches(
        images, PREPROCESSING, augmentation, batch_size=batch_size, seed=seed, epochs=epochs, **arguments
    )
    return list(stream.as_numpy_iterator())


def equal(these, those):
    return all(np.array_equal(a, b) for x, y in zip(these, those, strict=True) for a, b in zip(x, y, strict=True))


@pytest.fixture(scope="module")
def stream(digits):
    return batches(digits)


def test_a_stream_is_whole_batches_of_two_epochs(stream):
    assert len(stream) == 2 * (100 // 32)
    assert stream[0][0].shape == (32, 12, 12, 3)
    assert stream[0][1].shape == (32, 10)
    assert not equal(stream[:3], stream[3:])


def test_a_resumed_stream_goes_on_as_the_whole_one(digits, stream):
    assert equal(stream[3:], batches(digits, first_epoch=1))


@pytest.mark.parametrize(
    "augmentation, shard",
    [
        (Augmentation(mixup=0.5, cutmix=0.5, mix_group=8, random_erasing=0.5), (1, 2)),
        (Augmentation(flip="alternating", color_jitter=0.2), (0, 1)),
    ],
)
def test_the_first_images_of_an_epoch_are_those_of_the_stream(digits, augmentation, shard):
    batched = {"batch_size": 32, "seed": 1, "shard": shard}
    make = image_maker(digits, PREPROCESSING, augmentation, batched["seed"])
    made = first_images(digits, PREPROCESSING, augmentation, make, most=5, **batched)
    whole = batches(digits, augmentation, **batched)
    for epoch in (1, 0):
        pixels, _ = whole[epoch * (100 // 32)]
        assert made(epoch).shape == (5, 12, 12, 3)
        np.testing.assert_array_equal(made(epoch), pixels[:5])


def test_another_seed_gives_another_stream(digits):
    flips = Augmentation(flip=0.5)
    assert equal(batches(digits, flips), batches(digits, flips))
    assert not equal(batches(digits, flips), batches(digits, flips, seed=2))


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(digits):
    plain = dataclasses.replace(Augmentation(), crop_scale=None)
    (evaluated, _), *_ = evaluation_batches(digits, PREPROCESSING, 100).as_numpy_iterator()
    position = {image.tobytes(): i for i, image in enumerate(evaluated)}
    assert len(position) == 100
    orders = []
    stream = batches(digits, plain, batch_size=25)
    for epoch in (stream[:4], stream[4:]):
        images, labels = (np.concatenate(parts) for parts in zip(*epoch))
        orders.append([position[image.tobytes()] for image in images])
        assert sorted(orders[-1]) == list(range(100))
        np.testing.assert_array_equal(labels.argmax(axis=1), digits.labels[orders[-1]])
    assert orders[0] != orders[1] != sorted(orders[1])


def test_labels_are_smoothed(digits):
    (_, labels), *_ = batches(digits, Augmentation(), label_smoothing=0.1)
    np.testing.assert_allclose(np.sort(labels, axis=1)[:, -2:], [[0.01, 0.91]] * 32, rtol=1e-6)


def test_weights_follow_their_class(digits):
    (_, labels, weights), *_ = batches(digits, Augmentation(), class_weights=np.arange(10.0))
    np.testing.assert_array_equal(weights, labels.argmax(axis=1))


def test_weights_are_mixed_as_their_labels_are(digits):
    by_class = np.arange(1, 11).astype("float32")
    for recipe in (Augmentation(mixup=0.5), Augmentation(cutmix=0.5), EVERYTHING):
        for _, labels, weights in batches(digits, recipe, class_weights=by_class):
            np.testing.assert_allclose(weights, labels @ by_class, rtol=1e-5)
            assert np.ptp(labels.max(axis=1)) > 0


def test_tensorflow_does_not_rewrite_a_stream_for_its_workers(digits):
    """Under a tf.distribute strategy that took 20 s and more of processor time, three times a run."""
    for stream in (
        training_batches(digits, PREPROCESSING, EVERYTHING, batch_size=32, seed=1, epochs=2),
        evaluation_batches(digits, PREPROCESSING, 32),
    ):
        policy = stream.options().experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.OFF


def test_images_are_what_the_model_takes(stream):
    images = np.concatenate([x for x, _ in stream])
    assert images.dtype == np.float32
    # Erasing fills with normalised noise, which goes beyond; what is not erased stays in 0–255.
    assert np.mean((images >= 0) & (images <= 255)) > 0.9
    assert images.max() > 200


def hosts_put_together(images, count, **arguments):
    parts = [batches(images, shard=(host, count), **arguments) for host in range(count)]
    return [tuple(map(np.concatenate, zip(*step))) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize(
    ("augmentation", "count"), [(EVERYTHING, 2), (dataclasses.replace(EVERYTHING, mixup=0.0, cutmix=0.0), 4)]
)
def test_the_parts_of_the_hosts_are_the_batch_of_one(digits, augmentation, count):
    augmentation = dataclasses.replace(augmentation, mix_group=8)
    assert equal(batches(digits, augmentation), hosts_put_together(digits, count, augmentation=augmentation))


def test_a_host_reads_its_own_images_alone(digits):
    read = []

    def encoded(index):
        with tf.control_dependencies([tf.numpy_function(lambda i: read.append(int(i)), [index], [])]):
            return digits.encoded(index)

    spied = dataclasses.replace(digits, encoded=encoded)
    batches(spied, Augmentation(), epochs=1, shard=(1, 4))
    assert len(read) == 3 * 8


@pytest.mark.parametrize("shard", [(0, 5), (2, 2), (-1, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(digits, shard):
    with pytest.raises(ValueError, match="a batch of 32 images cannot be shared out"):
        batches(digits, shard=shard)


def test_hosts_that_would_have_to_mix_their_images_are_refused(digits):
    with pytest.raises(ValueError, match=r"groups of 32 images, .* set augmentation.mix_group to a divisor of 16"):
        batches(digits, shard=(0, 2))


def test_a_group_has_a_mixture_of_its_own(digits):
    mixup = Augmentation(mixup=0.5, mix_group=8)
    (_, labels), *_ = batches(digits, mixup)
    shares = labels.max(axis=1).reshape(4, 8)
    assert np.ptp(shares, axis=1).max() < 1e-6 or (shares == 1).any()
    assert len(set(np.round(labels[labels > 0], 4))) > 4
    whole, grouped = (batches(digits, dataclasses.replace(mixup, mix_group=g)) for g in (None, 32))
    assert equal(whole, grouped)


def test_parallelism_changes_nothing(digits, stream):
    def limited(threads):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        made = training_batches(digits, PREPROCESSING, EVERYTHING, batch_size=32, seed=1, epochs=2)
        return list(made.with_options(options).as_numpy_iterator())

    for threads in (1, 7):
        assert equal(limited(threads), stream)


@pytest.mark.parametrize(("cores", "most_bytes"), [(1, 2**30), (8, 2**30), (8, 1), (3, 2 * 32 * 12 * 12 * 12)])
def test_neither_do_cores_and_memory(digits, stream, monkeypatch, cores, most_bytes):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(training_stream, "_MOST_BYTES", most_bytes)
    assert equal(batches(digits), stream)


def test_evaluation_shows_every_image_once_in_order_with_its_index(digits):
    pixels, indices = zip(*evaluation_batches(digits, PREPROCESSING, 32).as_numpy_iterator())
    assert [len(batch) for batch in pixels] == [32, 32, 32, 4]
    np.testing.assert_array_equal(np.concatenate(indices), np.arange(100))


def test_fewer_images_than_a_batch_are_an_error(digits):
    with pytest.raises(ValueError, match="100 training images are fewer than the batch size 128"):
        steps_per_epoch(digits, 128)


@pytest.fixture(scope="module")
def large_jpegs():
    rng = np.random.default_rng(0)
    pictures = [tf.image.resize(rng.integers(0, 256, (9, 9, 3)), (160, 200), "bicubic") for _ in range(8)]
    encoded = [tf.io.encode_jpeg(tf.cast(tf.clip_by_value(one, 0, 255), tf.uint8)).numpy() for one in pictures]
    names = [str(i) for i in range(8)]
    return in_memory(names, np.arange(8), names, encoded)


def test_scaled_decoding_leaves_the_draws_of_every_epoch_seed_image_and_host_as_they_are(large_jpegs):
    full, scaled = (Augmentation(crop_scale=(0.3, 1.0), flip=0.5, scaled_decoding=asked) for asked in (False, True))

    def crops(augmentation, **arguments):
        return batches(large_jpegs, augmentation, batch_size=8, **arguments)

    found = crops(scaled)
    for (ours, labels), (theirs, same_labels) in zip(found, crops(full), strict=True):
        np.testing.assert_array_equal(labels, same_labels)
        assert 0 < np.abs(ours - theirs).mean() < 1  # another crop differs by some 30
    other = crops(scaled, seed=2)
    by_image = [pixels[labels.argmax(1).argsort()] for pixels, labels in (*found, *other)]
    for a, b in itertools.combinations(by_image, 2):
        assert np.abs(a - b).mean(axis=(1, 2, 3)).min() > 2
    assert equal(found, hosts_put_together(large_jpegs, 2, augmentation=scaled, batch_size=8))
