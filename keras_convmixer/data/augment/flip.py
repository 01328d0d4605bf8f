"""Random horizontal flip, as a keras-cv layer."""

import tensorflow as tf

from keras_convmixer.data.augment.base import SeededAugmentation, check_probability


class RandomFlip(SeededAugmentation):
    """Mirrors the image left to right.

    Args:
        probability: of doing so, 0 to 1. salt: see `SeededAugmentation`.
    """

    def __init__(self, probability=0.5, **kwargs):
        super().__init__(**kwargs)
        self.probability = check_probability("probability", probability)

    def augment_image(self, image, seeds):
        flip = self.uniform(seeds, "flip") < self.probability
        return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)

    def get_config(self):
        return super().get_config() | {"probability": self.probability}
