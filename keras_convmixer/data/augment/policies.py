"""RandAugment's tables: which operations there are, and what a magnitude means to each.

timm's (`timm.data.auto_augment`), written "rand-m9-mstd0.5-inc1", and torchvision's
(`torchvision.transforms.RandAugment`), written "torchvision-n2-m12".
"""

import dataclasses
import math
import re
from collections.abc import Callable

import tensorflow as tf

from keras_convmixer.data.augment import geometry, pixels
from keras_convmixer.errors import UserError

_GEOMETRIC = {geometry.rotate, geometry.shear_x, geometry.shear_y, geometry.translate_x, geometry.translate_y}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One row of a table.

    Attributes:
        name: timm's or torchvision's name of it.
        function: of `pixels` or `geometry`.
        argument: (magnitude, sign, image side in pixels) → the function's argument. The magnitude is a float
            tensor, the sign -1.0 or 1.0.
    """

    name: str
    function: Callable
    argument: Callable = lambda magnitude, sign, side: magnitude

    @property
    def geometric(self):
        return self.function in _GEOMETRIC

    def __call__(self, image, magnitude, sign, interpolation, fill):
        vertical = self.function is geometry.translate_y
        argument = self.argument(magnitude, sign, image.shape[0 if vertical else 1])
        if self.geometric:
            return self.function(image, argument, interpolation, fill)
        return self.function(image, argument)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A table with its numbers.

    Attributes:
        operations: drawn from evenly and with replacement.
        magnitude, magnitude_std, magnitude_max: the magnitude is N(magnitude, magnitude_std), cut to
            0–magnitude_max; with an infinite magnitude_std it is uniform in 0–magnitude.
        num_ops: how many operations an image gets. probability: of each of them to be applied.
        interpolation: "nearest", "bilinear", "bicubic", or "random" for one of the last two at even odds.
        fill: RGB in 0–255, of what moves in from outside.
    """

    operations: tuple[Operation, ...]
    magnitude: float
    magnitude_std: float
    magnitude_max: float
    num_ops: int
    probability: float
    interpolation: str
    fill: tuple[int, int, int]


def parse(text):
    """The `Policy` that a string means.

    Args:
        text: timm's form, "rand" and then, in any order: m (magnitude, default 10), n (operations per image, 2),
            mstd (standard deviation of the magnitude, 0; above 100: uniform), mmax (its upper bound, 10), p (0.5)
            and inc1 (every operation grows stronger with the magnitude). Or torchvision's, "torchvision" and then n
            (2) and m (9, at most 30).

    Raises:
        ValueError: a part is unknown or its value out of range.
    """
    kind, values = numbers(text, {"rand": ("m", "n", "mstd", "mmax", "p", "inc"), "torchvision": ("m", "n")})
    if values.get("n", 2) not in range(1, 16) or values.get("p", 0) > 1 or values.get("inc", 1) not in (0, 1):
        raise UserError(f"policy {text!r}: n must be a whole number from 1 to 15, p at most 1, inc 0 or 1")
    return (_timm if kind == "rand" else _torchvision)(text, values)


def numbers(text, known):
    """The kind of a policy and its numbers, "rand-m9-n2" → ("rand", {"m": 9.0, "n": 2.0}).

    Args:
        text: the policy. known: kind → the names of its numbers.

    Raises:
        ValueError: the kind or a name is unknown, or a name is given twice or without a number.
    """
    kind, *parts = str(text).split("-")
    if kind not in known:
        raise UserError(
            f'unknown RandAugment policy {text!r}; for instance "rand-m9-mstd0.5-inc1", "torchvision-n2-m12" '
            'or "keras_cv-n3-m0.5"'
        )
    values = {}
    for part in parts:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?|inf)", part)
        if not found or found[1] not in known[kind] or found[1] in values:
            raise UserError(
                f"{part!r} in the policy {text!r} is not one of {', '.join(known[kind])} with a number, once each"
            )
        values[found[1]] = float(found[2])
    return kind, values


def _timm(text, values):
    std = values.get("mstd", 0.0)
    return Policy(
        operations=TIMM_INCREASING if values.get("inc") else TIMM,
        magnitude=values.get("m", 10.0),
        magnitude_std=math.inf if std > 100 else std,
        magnitude_max=values.get("mmax", 10.0),
        num_ops=int(values.get("n", 2)),
        probability=values.get("p", 0.5),
        interpolation="random",
        fill=(124, 116, 104),
    )


def _torchvision(text, values):
    magnitude = values.get("m", 9.0)
    if magnitude not in range(31):
        raise UserError(f"policy {text!r}: m must be a whole number from 0 to 30")
    return Policy(
        operations=TORCHVISION,
        magnitude=magnitude,
        magnitude_std=0.0,
        magnitude_max=30.0,
        num_ops=int(values.get("n", 2)),
        probability=1.0,
        interpolation="nearest",
        fill=(0, 0, 0),
    )


def _signed(scale):
    return lambda m, sign, side: sign * m * scale


def _enhance(m, sign, side):
    return m * 0.18 + 0.1


def _enhance_increasing(m, sign, side):
    return tf.maximum(0.1, 1.0 + sign * m * 0.09)


def _translate(m, sign, side):
    return sign * m * 0.045 * side


def _levels(scale, m):
    # A magnitude of 7.5 must not count as 7.4999 in float32.
    return tf.floor(m * scale + 1e-4)


def _timm_table(posterize, solarize, enhance):
    return (
        Operation("AutoContrast", pixels.autocontrast),
        Operation("Equalize", pixels.equalize),
        Operation("Invert", pixels.invert),
        Operation("Rotate", geometry.rotate, _signed(3.0)),
        Operation("Posterize", pixels.posterize, posterize),
        Operation("Solarize", pixels.solarize, solarize),
        Operation("SolarizeAdd", pixels.solarize_add, lambda m, sign, side: tf.minimum(128.0, _levels(11.0, m))),
        Operation("Color", pixels.color, enhance),
        Operation("Contrast", pixels.contrast, enhance),
        Operation("Brightness", pixels.brightness, enhance),
        Operation("Sharpness", pixels.sharpness, enhance),
        Operation("ShearX", geometry.shear_x, _signed(0.03)),
        Operation("ShearY", geometry.shear_y, _signed(0.03)),
        Operation("TranslateXRel", geometry.translate_x, _translate),
        Operation("TranslateYRel", geometry.translate_y, _translate),
    )


TIMM = _timm_table(
    posterize=lambda m, sign, side: _levels(0.4, m),
    solarize=lambda m, sign, side: tf.minimum(256.0, _levels(25.6, m)),
    enhance=_enhance,
)

TIMM_INCREASING = _timm_table(
    posterize=lambda m, sign, side: 4.0 - _levels(0.4, m),
    solarize=lambda m, sign, side: 256.0 - tf.minimum(256.0, _levels(25.6, m)),
    enhance=_enhance_increasing,
)


# torchvision's magnitude is the index of one of 31 bins, of which the last is the strongest.
def _bin_factor(m, sign, side):
    return 1.0 + sign * m * 0.03


def _bin_translate(m, sign, side):
    return sign * tf.floor(m * (150 / 331 * side / 30) + 1e-4)


TORCHVISION = (
    Operation("Identity", pixels.identity),
    Operation("ShearX", geometry.shear_x, _signed(0.01)),
    Operation("ShearY", geometry.shear_y, _signed(0.01)),
    Operation("TranslateX", geometry.translate_x, _bin_translate),
    Operation("TranslateY", geometry.translate_y, _bin_translate),
    Operation("Rotate", geometry.rotate, _signed(1.0)),
    Operation("Brightness", pixels.brightness, _bin_factor),
    Operation("Color", pixels.color, _bin_factor),
    Operation("Contrast", pixels.contrast, _bin_factor),
    Operation("Sharpness", pixels.sharpness, _bin_factor),
    Operation("Posterize", pixels.posterize, lambda m, sign, side: 8.0 - tf.round(m / 7.5)),
    Operation("Solarize", pixels.solarize, lambda m, sign, side: 255.0 - m * 8.5),
    Operation("AutoContrast", pixels.autocontrast),
    Operation("Equalize", pixels.equalize),
)
