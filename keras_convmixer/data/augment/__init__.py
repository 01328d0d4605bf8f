"""Augmentation as keras-cv layers whose randomness is a pure function of each image's seeds.

They take and return the dictionary `{"images", "labels", "seeds"}` (see `SeededAugmentation`), and compose in
`keras_cv.layers.Augmenter` with keras-cv's own layers. All but `MixUpCutMix`, which needs a batch, are meant to be
called on single images inside `Dataset.map`: only what is drawn is then computed.
"""

from keras_convmixer.data.augment.base import SeededAugmentation
from keras_convmixer.data.augment.erasing import RandomErasing
from keras_convmixer.data.augment.flip import RandomFlip
from keras_convmixer.data.augment.jitter import ColorJitter
from keras_convmixer.data.augment.mix import MixUpCutMix
from keras_convmixer.data.augment.rand_augment import RandAugment

__all__ = [
    "ColorJitter",
    "MixUpCutMix",
    "RandAugment",
    "RandomErasing",
    "RandomFlip",
    "SeededAugmentation",
]
