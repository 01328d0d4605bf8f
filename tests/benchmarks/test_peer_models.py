"""The architectures beside ConvMixer: as large as it, and learning."""

import keras
import numpy as np
import pytest
from peer_models import PEERS, Sizes, matched, trainable

from keras_convmixer.errors import UserError
from keras_convmixer.variants import VARIANTS

CIFAR10 = VARIANTS["convmixer_256_8_ks5_p2"]


def sizes(depth, patch_size, side):
    return Sizes(depth, patch_size, (side, side), 10, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_as_many_parameters_as_the_convmixer(name):
    model = matched(name, sizes(8, 4, 32), CIFAR10.parameters)
    assert abs(trainable(model) / 594_186 - 1) < 0.05
    assert model.output_shape == (None, 10)


def test_a_convmixer_too_small_for_any_width_is_refused():
    with pytest.raises(UserError, match=r"no resmlp of depth 8 .* larger --dim"):
        matched("resmlp", sizes(8, 4, 32), 50)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_learns_and_is_loaded_as_it_was(name, tmp_path):
    """Bright against dark, which every one of them tells apart within a few steps."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = (labels * 120)[:, None, None, None] + rng.uniform(0, 120, (32, 8, 8, 3))
    model = PEERS[name](16, sizes(1, 2, 8))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch(images, labels)) for _ in range(12)]
    assert losses[-1] < losses[0] / 2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-5)
