"""What the augmentation layers share: all their randomness comes from seeds that travel with the images."""

import hashlib

import keras_cv
import numpy as np
import tensorflow as tf

from keras_convmixer.errors import UserError


class SeededAugmentation(keras_cv.layers.BaseImageAugmentationLayer):
    """A keras-cv augmentation layer whose result is a pure function of its inputs.

    keras-cv's own layers draw from a stateful generator, so a parallel `Dataset.map` gives other images on every
    run. This one takes the dictionary `{"images", "labels", "seeds"}`, for one image or for a batch:

    images: float32 `(height, width, 3)`, RGB in 0–255, of a size known when the graph is built.
    labels: float32 `(classes,)`, optional.
    seeds: int32 `(2,)`, the image's own: for instance a hash of the run's seed, the epoch and the image's index.

    It returns the same dictionary; what it does not augment passes through. A subclass defines
    `augment_image(image, seeds)`, and draws with `self.uniform`, `self.normal` and `self.gamma`.

    Args:
        salt: an integer mixed into the seeds, besides the class's name. Two layers of one class in the same chain
            need different salts, or they make the same draws.

    Raises:
        ValueError: when called, if there are no seeds or the image's size is unknown.
    """

    def __init__(self, salt=0, **kwargs):
        # float32 whatever the precision policy: bfloat16 has no room for 256 levels and their fractions.
        super().__init__(seed=0, **{"dtype": "float32"} | kwargs)
        self._random_generator = None
        self.salt = salt

    def uniform(self, seeds, draw, shape=()):
        """float32 in [0, 1). `draw` names the draw: draws of different names share no random bits."""
        return tf.random.stateless_uniform(shape, self._key(seeds, draw))

    def normal(self, seeds, draw, shape=()):
        """float32, mean 0, standard deviation 1."""
        return tf.random.stateless_normal(shape, self._key(seeds, draw))

    def beta(self, seeds, draw, alpha):
        """A scalar of the symmetric distribution Beta(alpha, alpha), as float64."""
        gamma = tf.random.stateless_gamma(
            (2,), self._key(seeds, draw), tf.constant(alpha, tf.float64), dtype=tf.float64
        )
        # With a tiny alpha both can underflow to 0: Beta is then all but certainly at one of its ends.
        return tf.math.divide_no_nan(gamma[0], gamma[0] + gamma[1])

    def _key(self, seeds, draw):
        # The stateless operations scramble their seed themselves; it only has to differ between draws.
        text = f"{type(self).__name__}/{self.salt}/{draw}".encode()
        mask = np.frombuffer(hashlib.blake2b(text, digest_size=8).digest(), "<i4")
        return tf.bitwise.bitwise_xor(seeds, mask)

    def _augment(self, inputs):
        self._check(inputs)
        image = inputs["images"]
        return inputs | {"images": tf.ensure_shape(self.augment_image(image, inputs["seeds"]), image.shape)}

    def _batch_augment(self, inputs):
        self._check(inputs)
        images, seeds = inputs["images"], inputs["seeds"]
        augmented = tf.map_fn(
            lambda i: self.augment_image(images[i], seeds[i]),
            tf.range(tf.shape(images)[0]),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec(images.shape[1:]),
        )
        return inputs | {"images": tf.ensure_shape(augmented, images.shape)}

    def _check(self, inputs):
        # A plain ValueError: AutoGraph, in a Dataset.map, makes another error of a subclass.
        name = type(self).__name__
        if "seeds" not in inputs:
            raise ValueError(f'{name} takes a dictionary with "images" and "seeds", got {list(inputs)}')
        shape = inputs["images"].shape[-3:]
        if None in shape or shape[-1] != 3:
            raise ValueError(f"{name} needs images (height, width, 3) of a known size, got {shape}")

    def get_config(self):
        return super().get_config() | {"salt": self.salt}


def check_probability(name, value):
    """The value, if it is in 0–1. Raises ValueError otherwise."""
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be in 0–1, got {value!r}")
    return value


def paste(image, patch, top, left):
    """Replaces a rectangle of an image, as random erasing and CutMix do.

    Args:
        image: `(height, width, channels)`. patch: the same with a height and width of its own, which may be 0.
        top, left: integer scalars, where the patch begins. It must lie inside the image.
    """
    bottom, right = top + tf.shape(patch)[0], left + tf.shape(patch)[1]
    rows = tf.concat([image[top:bottom, :left], patch, image[top:bottom, right:]], 1)
    return tf.concat([image[:top], rows, image[bottom:]], 0)
