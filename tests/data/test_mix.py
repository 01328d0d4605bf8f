"""MixUp, CutMix and label smoothing against timm's numbers."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_convmixer.data.augment import MixUpCutMix, mix


def test_a_mixed_batch_depends_on_its_first_seeds_alone():
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (8, 12, 20, 3)).astype("float32")
    labels = np.eye(8, dtype="float32")
    seeds = rng.integers(0, 1000, (8, 2)).astype("int32")
    inputs = {"images": images, "labels": labels, "seeds": seeds}
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    one, four = (list(data.map(MixUpCutMix(), num_parallel_calls=n).as_numpy_iterator()) for n in (1, 4))
    for a, b in zip(one, four):
        np.testing.assert_array_equal(a["images"], b["images"])
        np.testing.assert_array_equal(a["labels"], b["labels"])
    others = np.concatenate([seeds[:1], seeds[1:] + 100])
    found = MixUpCutMix()(inputs | {"seeds": others})["images"]
    np.testing.assert_array_equal(found, MixUpCutMix()(inputs)["images"])
    assert not np.array_equal(found, MixUpCutMix()(inputs | {"seeds": seeds[::-1]})["images"])


def test_mixup_targets_are_timms(oracles):
    case = json.loads((oracles / "augment" / "mixup_targets.json").read_text())
    labels = np.eye(case["classes"], dtype="float32")[case["labels"]]
    smooth = labels * (1 - case["smoothing"]) + case["smoothing"] / labels.shape[-1]
    np.testing.assert_allclose(mix.mix_labels(smooth, case["lambda"]), case["targets"], atol=1e-6)


def test_cutmix_boxes_are_timms(oracles):
    reference = json.loads((oracles / "augment" / "cutmix_boxes.json").read_text())
    for case in reference["cases"]:
        centre = tf.constant([case["center_y"], case["center_x"]])
        lam = tf.constant(case["lambda_drawn"], tf.float64)
        box, corrected = mix.cutmix_box(lam, centre, tf.constant(reference["image"]))
        assert [int(side) for side in box] == case["box"]
        assert float(corrected) == pytest.approx(case["lambda_corrected"], abs=1e-6)


def many_batches(layer, count=1500):
    """`count` batches of four: white, grey and two black images of four classes."""
    source = tf.constant(np.repeat(np.array([255, 51, 0, 0], "float32"), 300).reshape(4, 10, 10, 3))
    labels = tf.eye(4)
    seeds = tf.data.Dataset.range(count).map(
        lambda i: tf.stack([tf.fill([4], tf.cast(i, tf.int32)), tf.range(4)], 1)
    )
    data = seeds.map(lambda s: layer({"images": source, "labels": labels, "seeds": s}), num_parallel_calls=2)
    batch = next(iter(data.batch(count)))
    return batch["images"].numpy(), batch["labels"].numpy()


def beta_half(lam):
    """Distribution function of Beta(0.5, 0.5)."""
    return 2 / np.pi * np.arcsin(np.sqrt(lam))


def test_mixup_mixes_images_and_labels_by_one_lambda_a_batch():
    mixed, labels = many_batches(MixUpCutMix(0.5, 0))
    lam = labels[:, 0, 0]
    np.testing.assert_allclose(
        labels, lam[:, None, None] * np.eye(4) + (1 - lam)[:, None, None] * np.eye(4)[::-1], atol=1e-6
    )
    np.testing.assert_allclose(
        mixed[:, 0], np.broadcast_to(255 * lam[:, None, None, None], mixed[:, 0].shape), atol=1e-3
    )
    np.testing.assert_allclose(
        mixed[:, 2], np.broadcast_to(51 * (1 - lam)[:, None, None, None], mixed[:, 2].shape), atol=1e-3
    )
    assert np.abs(np.sort(beta_half(lam)) - np.linspace(0, 1, len(lam))).max() < 0.05


def test_cutmix_corrects_lambda_to_what_is_left():
    mixed, labels = many_batches(MixUpCutMix(0, 0.5))
    lam = labels[:, 0, 0]
    np.testing.assert_allclose((mixed[:, 0, :, :, 0] == 255).mean((1, 2)), lam, atol=1e-6)
    np.testing.assert_allclose((mixed[:, 3, :, :, 0] == 0).mean((1, 2)), lam, atol=1e-6)
    np.testing.assert_allclose(labels.sum(2), 1, atol=1e-6)
    assert set(np.unique(mixed)) == {0, 51, 255}
    # λ is distributed as timm's: Beta(0.5, 0.5), then corrected for a box about an even centre, cut at the border.
    rng = np.random.default_rng(0)
    drawn, centre = rng.beta(0.5, 0.5, 20_000), rng.integers(0, 10, (2, 20_000))
    side = (np.sqrt(1 - drawn) * 10).astype(int)
    low, high = np.clip(centre - side // 2, 0, 10), np.clip(centre + side // 2 + side % 2, 0, 10)
    theirs = 1 - (high - low).prod(axis=0) / 100
    assert scipy.stats.ks_2samp(lam.astype(float).round(4), theirs.round(4)).pvalue > 0.001


def test_the_two_are_drawn_at_even_odds():
    mixed, _ = many_batches(MixUpCutMix(0.5, 0.5))
    cut = np.isin(mixed, (0, 51, 255)).all((1, 2, 3, 4))
    assert abs(cut.mean() - 0.5) < 0.05
