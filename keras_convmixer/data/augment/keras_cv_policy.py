"""keras-cv's own RandAugment, written "keras_cv-n3-m0.5-mstd0.15-p0.9" in a recipe."""

import keras_cv

from keras_convmixer.data.augment import policies
from keras_convmixer.errors import UserError

PREFIX = "keras_cv"


def keras_cv_rand_augment(policy):
    """`keras_cv.layers.RandAugment` as a function of the dictionary that the layers here take.

    It draws from a stateful generator and leaves the seeds unread: neither another run with the same seed nor a
    resumed one makes the same images.

    Args:
        policy: "keras_cv" and then, in any order: n (operations per image, default 3), m (mean magnitude, 0.5),
            mstd (its standard deviation, 0.15) and p (probability of each operation, 10/11). All but n lie in 0–1.

    Raises:
        ValueError: a part is unknown or its value out of range.
    """
    _, values = policies.numbers(policy, {PREFIX: ("n", "m", "mstd", "p")})
    count = values.pop("n", 3)
    if count not in range(1, 16) or not all(0 <= value <= 1 for value in values.values()):
        raise UserError(f"policy {policy!r}: n must be a whole number from 1 to 15, m, mstd and p at most 1")
    layer = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=int(count),
        magnitude=values.get("m", 0.5),
        magnitude_stddev=values.get("mstd", 0.15),
        rate=values.get("p", 10 / 11),
        dtype="float32",
    )
    return lambda inputs: inputs | {"images": layer(inputs["images"])}
