"""What a model expects of an image: input size, crop, interpolation, normalisation. Travels with the weights."""

import dataclasses
import json
import math
import reprlib
from pathlib import Path

from keras_convmixer.errors import UserError, one_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
LARGEST = 16_384


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing, after timm's: resize the short side, crop the centre, normalise.

    The image is resized (antialiased) so that its centre crop of `input_size` covers the fraction `crop` of its
    short side. The result is RGB in 0–255; the model itself computes `(x / 255 - mean) / std`.

    Args:
        input_size: (height, width) in pixels, at most 16,384; or one number for both.
        crop: fraction of the resized short side that the crop keeps, from 0.01 to 1. timm's published ConvMixers
            use 0.96.
        interpolation: "nearest", "bilinear" or "bicubic".
        mean, std: per channel, for images scaled to 0–1.

    Raises:
        ValueError: a value is out of range.
    """

    input_size: tuple[int, int] = (224, 224)
    crop: float = 0.96
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self):
        size = self.input_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        object.__setattr__(self, "input_size", size)
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        # A bool is an int to Python, but no size.
        if len(size) != 2 or not all(type(v) is int and 1 <= v <= LARGEST for v in size):
            got = reprlib.repr(size)
            raise UserError(f"input_size must be two integers (height, width) from 1 to {LARGEST:,}, got {got}")
        if isinstance(self.crop, bool) or not 0.01 <= self.crop <= 1:
            raise UserError(f"crop must be a number from 0.01 to 1, got {reprlib.repr(self.crop)}")
        if self.interpolation not in INTERPOLATIONS:
            got = reprlib.repr(self.interpolation)
            raise UserError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {got}")
        finite = all(map(math.isfinite, self.mean + self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            got = f"{reprlib.repr(self.mean)}, {reprlib.repr(self.std)}"
            raise UserError(f"mean and std must be three numbers each, std above 0; got {got}")

    @property
    def resize_size(self) -> tuple[int, ...]:
        """(height, width) that the resized image covers before the centre crop: floor(input_size / crop)."""
        return tuple(math.floor(side / self.crop) for side in self.input_size)

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote. Raises ValueError where it is not that."""
        values = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) - names:
            raise UserError(f"expected a JSON object with {', '.join(sorted(names))}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def read(cls, path):
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is not a preprocessing file: {one_line(error)}") from None
