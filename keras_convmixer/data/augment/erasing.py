"""Random erasing (arXiv 1708.04896) as timm does it, and cutout (arXiv 1708.04552), as keras-cv layers."""

import math

import tensorflow as tf

from keras_convmixer.data.augment.base import SeededAugmentation, check_probability, paste
from keras_convmixer.errors import UserError
from keras_convmixer.preprocessing import IMAGENET_MEAN, IMAGENET_STD

_TRIES = 10


class RandomErasing(SeededAugmentation):
    """Replaces a random rectangle by noise or by the mean colour.

    The reference implementations erase after normalisation; here images are still in 0–255, so the rectangle is
    filled with what the model's normalisation turns into N(0, 1) or into 0. Noise may lie outside 0–255.

    Args:
        probability: of erasing, 0 to 1.
        area: bounds of the rectangle's share of the image, drawn evenly.
        aspect: bounds of its height by its width, drawn evenly in the logarithm. A rectangle that does not fit is
            drawn again, ten times at most; then nothing is erased.
        mode: "pixel" for noise in every pixel and channel, "zero" for the mean colour.
        mean, std: of the model's preprocessing, per channel, for images scaled to 0–1.
        salt: see `SeededAugmentation`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        probability=0.25,
        area=(0.02, 1 / 3),
        aspect=(0.3, 1 / 0.3),
        mode="pixel",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.probability = check_probability("probability", probability)
        self.area, self.aspect, self.mode = tuple(area), tuple(aspect), mode
        self.mean, self.std = tuple(mean), tuple(std)
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"area must be two rising numbers above 0 and at most 1, got {area!r}")
        if len(self.aspect) != 2 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"aspect must be two rising numbers above 0, got {aspect!r}")
        if mode not in ("pixel", "zero"):
            raise UserError(f'mode must be "pixel" or "zero", got {mode!r}')

    def draw(self, seeds, size):
        """The rectangle for an image of `size` (height, width): int32 (top, left, height, width).

        Its height is 0 where none of the tries fits the image.
        """
        height, width = size
        area, aspect = tf.unstack(self.uniform(seeds, "size", (2, _TRIES)))
        area = (self.area[0] + (self.area[1] - self.area[0]) * area) * (height * width)
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        aspect = tf.exp(low + (high - low) * aspect)
        tries = tf.cast(tf.round(tf.stack([tf.sqrt(area * aspect), tf.sqrt(area / aspect)], 1)), tf.int32)
        fits = tf.cast(tf.reduce_all(tries < size, 1), tf.int32)
        first = tf.argmax(fits)
        box = tries[first] * fits[first]
        corner = self.uniform(seeds, "corner", (2,)) * tf.cast(size - box + 1, tf.float32)
        return tf.concat([tf.minimum(tf.cast(corner, tf.int32), size - box), box], 0)

    def augment_image(self, image, seeds):
        erase = self.uniform(seeds, "erase") < self.probability
        return tf.cond(erase, lambda: self._erase(image, seeds), lambda: image)

    def _erase(self, image, seeds):
        top, left, height, width = tf.unstack(self.draw(seeds, image.shape[:2]))
        shape = tf.stack([height, width, 3])
        mean, std = 255.0 * tf.constant(self.mean), 255.0 * tf.constant(self.std)
        patch = tf.broadcast_to(mean, shape)
        if self.mode == "pixel":
            patch += std * self.normal(seeds, "noise", shape)
        return paste(image, patch, top, left)

    def get_config(self):
        names = ("probability", "area", "aspect", "mode", "mean", "std")
        return super().get_config() | {name: getattr(self, name) for name in names}


class Cutout(SeededAugmentation):
    """Replaces a square in every image by the mean colour.

    The square lies inside the image, wherever it fits evenly, as in airbench (arXiv 2404.00498); where it was first
    described, its centre did, so that a part of it was often outside.

    Args:
        side: of the square, in pixels.
        mean: of the model's preprocessing, per channel, for images scaled to 0–1.
        salt: see `SeededAugmentation`.

    Raises:
        ValueError: an image is smaller than the square.
    """

    def __init__(self, side, mean=IMAGENET_MEAN, **kwargs):
        super().__init__(**kwargs)
        self.side, self.mean = side, tuple(mean)

    def augment_image(self, image, seeds):
        height, width, _ = image.shape
        if self.side > min(height, width):
            raise ValueError(f"a cutout of {self.side} pixels is larger than an image of {height} × {width}")
        room = tf.constant([height - self.side + 1, width - self.side + 1])
        top, left = tf.unstack(tf.cast(self.uniform(seeds, "corner", (2,)) * tf.cast(room, tf.float32), tf.int32))
        return paste(image, tf.broadcast_to(255.0 * tf.constant(self.mean), (self.side, self.side, 3)), top, left)

    def get_config(self):
        return super().get_config() | {"side": self.side, "mean": self.mean}
