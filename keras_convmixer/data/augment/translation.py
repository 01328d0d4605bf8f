"""Random translation, as a keras-cv layer."""

import tensorflow as tf

from keras_convmixer.data.augment.base import SeededAugmentation


class RandomTranslation(SeededAugmentation):
    """Shifts the image by whole pixels, up and down and to both sides, all shifts equally likely.

    What comes in at a side is the image mirrored there, as airbench does it (arXiv 2404.00498).

    Args:
        most: pixels that it is shifted by at most. salt: see `SeededAugmentation`.

    Raises:
        ValueError: an image has not as many pixels beside its outermost ones.
    """

    def __init__(self, most, **kwargs):
        super().__init__(**kwargs)
        self.most = most

    def augment_image(self, image, seeds):
        height, width, _ = image.shape
        if self.most >= min(height, width):
            raise ValueError(f"an image of {height} × {width} cannot be shifted by {self.most} pixels")
        wide = tf.pad(image, [[self.most] * 2, [self.most] * 2, [0, 0]], "REFLECT")
        draws = self.uniform(seeds, "shift", (2,))
        top, left = tf.unstack(tf.cast(draws * (2 * self.most + 1), tf.int32))
        return wide[top : top + height, left : left + width]

    def get_config(self):
        return super().get_config() | {"most": self.most}
