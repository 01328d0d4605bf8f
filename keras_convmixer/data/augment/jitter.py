"""Colour jitter as torchvision does it, as a keras-cv layer."""

import tensorflow as tf

from keras_convmixer.data.augment import pixels
from keras_convmixer.data.augment.base import SeededAugmentation
from keras_convmixer.errors import UserError


class ColorJitter(SeededAugmentation):
    """Changes brightness, contrast, saturation and hue by random amounts and in random order.

    Values are rounded to whole numbers in 0–255 first, as on torchvision's 8-bit images.

    Args:
        brightness, contrast, saturation: each factor is drawn evenly from 1 ± this, not below 0; 0 for no change.
        hue: the hue turns by a fraction of the circle drawn evenly from ± this, 0 to 0.5.
        salt: see `SeededAugmentation`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, **kwargs):
        super().__init__(**kwargs)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise UserError(
                "brightness, contrast and saturation must be at least 0 and hue in 0–0.5, "
                f"got {brightness}, {contrast}, {saturation}, {hue}"
            )
        strengths = {
            pixels.brightness: (max(0.0, 1.0 - brightness), 1.0 + brightness),
            pixels.contrast: (max(0.0, 1.0 - contrast), 1.0 + contrast),
            pixels.color: (max(0.0, 1.0 - saturation), 1.0 + saturation),
            pixels.hue: (-hue, hue),
        }
        self._ranges = {function: bounds for function, bounds in strengths.items() if bounds[0] < bounds[1]}

    def augment_image(self, image, seeds):
        count = len(self._ranges)
        if count == 0:
            return image
        image = pixels.whole(image)
        u, order = tf.unstack(self.uniform(seeds, "jitter", (2, count)))
        order = tf.argsort(order)
        for i in range(count):
            branches = [
                lambda image=image, function=function, low=low, high=high, u=u[j]: function(
                    image, low + (high - low) * u
                )
                for j, (function, (low, high)) in enumerate(self._ranges.items())
            ]
            image = tf.switch_case(order[i], branches)
        return image

    def get_config(self):
        names = ("brightness", "contrast", "saturation", "hue")
        return super().get_config() | {name: getattr(self, name) for name in names}
