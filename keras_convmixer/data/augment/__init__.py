"""Augmentation as keras-cv layers whose randomness is a pure function of each image's seeds.

They take and return the dictionary `{"images", "labels", "seeds"}` (see `SeededAugmentation`), and compose in
`keras_cv.layers.Augmenter` with keras-cv's own layers. All but `MixUpCutMix`, which needs a batch, are meant to be
called on single images inside `Dataset.map`: only what is drawn is then computed.
"""

from keras_convmixer.data.augment.base import SeededAugmentation
from keras_convmixer.data.augment.erasing import Cutout, RandomErasing
from keras_convmixer.data.augment.flip import RandomFlip
from keras_convmixer.data.augment.jitter import ColorJitter
from keras_convmixer.data.augment.keras_cv_policy import keras_cv_rand_augment
from keras_convmixer.data.augment.mix import MixUpCutMix
from keras_convmixer.data.augment.rand_augment import RandAugment
from keras_convmixer.data.augment.translation import RandomTranslation

__all__ = [
    "ColorJitter",
    "Cutout",
    "MixUpCutMix",
    "RandAugment",
    "RandomErasing",
    "RandomFlip",
    "RandomTranslation",
    "SeededAugmentation",
    "keras_cv_rand_augment",
    "rand_augment",
]


def rand_augment(policy):
    """What a recipe's `rand_augment` means: `RandAugment`, or for "keras_cv-..." `keras_cv_rand_augment`.

    For images of whole numbers in 0–255, as the decoder gives them.
    """
    if str(policy).startswith("keras_cv"):
        return keras_cv_rand_augment(policy)
    return RandAugment(policy, rounding=False)
