"""How far a block sees, against what moves its output."""

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import visualize


def made(kernel_size, side=30):
    keras.utils.set_random_seed(0)
    return keras_convmixer.ConvMixer(8, 2, kernel_size, 2, input_shape=(side, side, 3), include_top=False)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).uniform(0, 255, (2, 30, 30, 3)).astype("float32")


# The middle one of 15 patches is 7: from pixel 14 on. Keras pads an even kernel behind.
@pytest.mark.parametrize(
    "kernel_size, block, side, first, last",
    [(3, 0, 6, 12, 17), (3, 1, 10, 10, 19), (4, 0, 8, 12, 19), (4, 1, 14, 10, 23), (1, 1, 2, 14, 15)],
)
def test_it_is_inside_the_theoretical_one(noise, kernel_size, block, side, first, last):
    model = made(kernel_size)
    assert visualize.receptive_field(model, block) == side == last - first + 1
    field = visualize.effective_receptive_field(model, noise, block)
    assert field.shape == (30, 30)
    assert field.sum() == pytest.approx(1, abs=1e-5)
    inside = np.zeros((30, 30), bool)
    inside[first : last + 1, first : last + 1] = True
    assert (field[inside] > 0).all()
    assert (field[~inside] == 0).all()


def test_pixels_have_the_share_that_they_move_the_output_by(noise):
    model, image = made(3), noise[0]
    field = visualize.effective_receptive_field(model, [image])
    slopes = []
    for row, column in ((14, 15), (11, 17)):
        moved = np.stack([image + 3 * sign * at(row, column, colour) for colour in range(3) for sign in (1, -1)])
        outputs = keras.ops.convert_to_numpy(model(moved, training=False))[:, 7, 7].sum(axis=-1, dtype="float64")
        slopes.append(np.abs(outputs[::2] - outputs[1::2]).sum())
    assert field[14, 15] / field[11, 17] == pytest.approx(slopes[0] / slopes[1], rel=0.02)


def at(row, column, colour):
    point = np.zeros((30, 30, 3), "float32")
    point[row, column, colour] = 1
    return point


def test_it_is_an_average_over_images(noise):
    model = made(3)
    both = visualize.effective_receptive_field(model, noise)
    one, other = (visualize.effective_receptive_field(model, [image]) for image in noise)
    assert (both <= np.maximum(one, other) + 1e-7).all()
    assert (both >= np.minimum(one, other) - 1e-7).all()
    assert np.abs(both - one).max() > 1e-5
    with pytest.raises(ValueError, match="an average over images: give at least one"):
        visualize.effective_receptive_field(model, [])


def test_squares_hold_their_share():
    field = np.zeros((30, 30), "float32")
    field[14:16, 14:16] = 0.6 / 4
    field[12, 12] = 0.3
    field[0, 29] = 0.1
    assert [visualize.side_holding(field, share, 2) for share in (0.5, 0.61, 0.9, 0.95)] == [2, 6, 6, 30]
