"""RandAugment (arXiv 1909.13719) with timm's and torchvision's tables, as a keras-cv layer."""

import functools
import math

import numpy as np
import tensorflow as tf

from keras_convmixer.data.augment import pixels, policies
from keras_convmixer.data.augment.base import SeededAugmentation
from keras_convmixer.data.graph import apart
from keras_convmixer.errors import UserError

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "random")


class RandAugment(SeededAugmentation):
    """Applies a few operations, drawn at random for each image, at a given magnitude.

    Only the operations drawn are computed. Values are rounded to whole numbers in 0–255 first, since the reference
    implementations work on 8-bit images. `keras_cv.layers.RandAugment` is another thing: its operations, their
    magnitudes and its source of randomness (a stateful generator) differ.

    Args:
        policy: as `policies.parse` reads it. The authors' ImageNet recipe has "rand-m9-mstd0.5-inc1" (timm), their
            CIFAR-10 recipe "torchvision-n2-m12" (torchvision).
        interpolation: "nearest", "bilinear", "bicubic", or "random" for bilinear or bicubic, drawn for each
            operation. Default: what the policy's own library does, "random" for timm and "nearest" for torchvision.
        fill: RGB in 0–255 of what moves in from outside. Default: (124, 116, 104) for timm, black for torchvision.
        rounding: False where images are known to hold whole numbers in 0–255, as a decoder gives them.
        salt: see `SeededAugmentation`.

    Raises:
        ValueError: the policy or the interpolation is unknown, or the fill is not three numbers in 0–255.
    """

    def __init__(self, policy="rand-m9-mstd0.5-inc1", interpolation=None, fill=None, rounding=True, **kwargs):
        super().__init__(**kwargs)
        self.policy, self.rounding = policy, rounding
        self._policy = policies.parse(policy)
        self.interpolation = interpolation or self._policy.interpolation
        self.fill = tuple(self._policy.fill if fill is None else fill)
        if self.interpolation not in _INTERPOLATIONS:
            raise UserError(f"interpolation must be one of {', '.join(_INTERPOLATIONS)}; got {interpolation!r}")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise UserError(f"fill must be three numbers in 0–255, got {fill!r}")
        self._build_branches()
        # A function, so that the many branches are traced once and not once for each operation.
        self._step = tf.function(self._apply, autograph=False)

    def _build_branches(self):
        """Lists what can be done to an image, and in `_choice[bicubic, operation]` which of these is meant."""
        operations, random = self._policy.operations, self.interpolation == "random"
        interpolations = ("bilinear", "bicubic") if random else (self.interpolation,)
        self._branches = [apart(lambda image, magnitude, sign: image)]
        self._choice = np.zeros((len(interpolations), len(operations)), "int32")
        for i, interpolation in enumerate(interpolations):
            for j, operation in enumerate(operations):
                if i == 0 or operation.geometric:
                    self._choice[i, j] = len(self._branches)
                    apply = functools.partial(operation, interpolation=interpolation, fill=self.fill)
                    self._branches.append(apart(apply))
                else:
                    self._choice[i, j] = self._choice[0, j]

    def draw(self, seeds):
        """What an image with these seeds gets: a dictionary of tensors `(num_ops,)`.

        operation: index in the policy's table. applied: whether it is. magnitude. sign: -1.0 or 1.0, for those
        that have two directions. bicubic: 1 for bicubic, 0 for the other interpolation.
        """
        policy = self._policy
        u = tf.unstack(self.uniform(seeds, "operation", (4, policy.num_ops)))
        if math.isinf(policy.magnitude_std):
            magnitude = policy.magnitude * self.uniform(seeds, "magnitude", (policy.num_ops,))
        elif policy.magnitude_std > 0:
            noise = self.normal(seeds, "magnitude", (policy.num_ops,))
            magnitude = policy.magnitude + policy.magnitude_std * noise
        else:
            magnitude = tf.fill([policy.num_ops], policy.magnitude)
        return {
            "operation": tf.cast(u[0] * len(policy.operations), tf.int32),
            "applied": u[1] < policy.probability,
            "magnitude": tf.clip_by_value(magnitude, 0.0, policy.magnitude_max),
            "sign": tf.where(u[2] < 0.5, -1.0, 1.0),
            "bicubic": tf.cast(u[3] * len(self._choice), tf.int32),
        }

    def augment_image(self, image, seeds):
        drawn = self.draw(seeds)
        branch = tf.gather_nd(self._choice, tf.stack([drawn["bicubic"], drawn["operation"]], 1))
        branch = branch * tf.cast(drawn["applied"], tf.int32)
        image = pixels.whole(image) if self.rounding else image
        for i in range(self._policy.num_ops):
            image = self._step(image, branch[i], drawn["magnitude"][i], drawn["sign"][i])
        return image

    def _apply(self, image, branch, magnitude, sign):
        return tf.switch_case(branch, [functools.partial(f, image, magnitude, sign) for f in self._branches])

    def get_config(self):
        return super().get_config() | {
            "policy": self.policy,
            "interpolation": self.interpolation,
            "fill": self.fill,
            "rounding": self.rounding,
        }
