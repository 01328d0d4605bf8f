"""keras-cv's own RandAugment in a recipe."""

import re

import numpy as np
import pytest
import tensorflow as tf

from keras_convmixer.data import augment


def test_it_changes_the_images_alone():
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3)).astype("float32")
    inputs = {"images": images, "seeds": np.zeros((6, 2), "int32"), "labels": np.eye(6, dtype="float32")}
    layer = augment.rand_augment("keras_cv-n2-m0.9-p1")
    stream = tf.data.Dataset.from_tensor_slices(inputs).map(layer, num_parallel_calls=2).batch(6)
    (out,) = stream.as_numpy_iterator()
    assert out["images"].shape == images.shape
    assert 0 <= out["images"].min() <= out["images"].max() <= 255
    assert not np.array_equal(out["images"], images)
    np.testing.assert_array_equal(out["labels"], inputs["labels"])


@pytest.mark.parametrize(
    "policy", ["keras_cv-m9", "keras_cv-n0", "keras_cv-n1.5", "keras_cv-inc1", "keras_cv-m0.5-m0.5", "keras_cv_n2"]
)
def test_a_string_that_means_nothing_is_refused(policy):
    with pytest.raises(ValueError, match=re.escape(repr(policy))):
        augment.rand_augment(policy)
