"""Whether an export does what the Keras model does, on real images, and how fast each is."""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from keras_convmixer.errors import UserError
from keras_convmixer.progress import Progress

WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What an export may differ by.

    Attributes:
        max_difference: of a probability, None where any will do that is a number.
        agreement: at least, fraction of images with the same class on top.
    """

    max_difference: float | None
    agreement: float


# Measured on small models of the digits: float32 differs by 1e-6, float16 by up to 1e-2 and dynamic by up to 3e-2
# of a probability, with at most one class changed in 256. In floating point a class changes only between two that
# are all but equal, hence 99 %: 2 images of 256. With 8 bits a single image near a class boundary may well swing
# from one class to another, so that only how often that happens tells a working model from a broken one: no limit
# is set to the difference.
TOLERANCES = {
    "none": Tolerance(1e-4, 0.99),
    "float16": Tolerance(5e-2, 0.99),
    "dynamic": Tolerance(None, 0.95),
    "int8": Tolerance(None, 0.95),
}


class Disagreement(UserError):
    """An export differs from the Keras model by more than its tolerance."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was measured, image by image.

    Attributes:
        images: how many.
        max_difference: the greatest absolute difference of a probability.
        agreement: fraction of images with the same class on top.
        latency_ms, keras_latency_ms: medians in milliseconds, one image at a time, both in turns.
    """

    images: int
    max_difference: float
    agreement: float
    latency_ms: float
    keras_latency_ms: float

    def check(self, tolerance, name):
        """Raises `Disagreement` beyond the tolerance; what is not a number is beyond any."""
        most = 1.0 if tolerance.max_difference is None else tolerance.max_difference
        if not self.max_difference <= most:
            raise Disagreement(
                f"{name} was not kept: a probability differs from the Keras model's by {self.max_difference:.2g}, "
                f"at most {most:g} is allowed"
            )
        if not self.agreement >= tolerance.agreement:
            raise Disagreement(
                f"{name} was not kept: its first class is the Keras model's on {self.agreement:.2%} of "
                f"{self.images} images, at least {tolerance.agreement:.2%} is asked for"
            )


def compare(model, exported, pairs, total):
    """Runs both on the same images.

    Args:
        model: the Keras model, ending in logits.
        exported: a function to a dictionary with "probabilities", an array `(1, classes)`.
        pairs: for each image what to give to the model, float32 `(1, height, width, 3)`, and to the function.
        total: how many pairs there are.

    Returns:
        A `Comparison`.
    """

    @tf.function
    def in_graph(image):
        return tf.nn.softmax(model(image, training=False))

    differences, agreements, times = [], [], []
    with Progress("comparing on images", total) as progress:
        for ours, theirs in pairs:
            began = time.perf_counter()
            probabilities = in_graph(tf.constant(ours)).numpy()
            between = time.perf_counter()
            got = exported(theirs)["probabilities"]
            times.append((between - began, time.perf_counter() - between))
            differences.append(np.abs(got - probabilities).max())
            agreements.append(got.argmax() == probabilities.argmax())
            progress.update()
    keras_time, own_time = np.median(times[WARM_UP:] or times, axis=0)
    return Comparison(
        images=len(times),
        max_difference=float(np.max(differences)),
        agreement=float(np.mean(agreements)),
        latency_ms=1000 * float(own_time),
        keras_latency_ms=1000 * float(keras_time),
    )
