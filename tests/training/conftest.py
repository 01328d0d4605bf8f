import pytest

from keras_convmixer import Recipe

SMALL = [
    "model.dim=8",
    "model.depth=1",
    "augmentation.crop_scale=null",
    "training.epochs=2",
    "training.batch_size=128",
    "optimizer.learning_rate=0.02",
]


@pytest.fixture
def small_recipe():
    """The digits recipe with a model of seconds, overridden further as asked."""
    return lambda *overrides: Recipe.load("digits", [*SMALL, *overrides])
