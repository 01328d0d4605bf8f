"""A training as plain data: read strictly from YAML, overridden from the command line, saved beside the run."""

import dataclasses
import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml

from keras_convmixer.errors import UserError
from keras_convmixer.preprocessing import INTERPOLATIONS

# Strict about names, lenient about spelling: YAML reads 1e-3 as a string, and "0.1" is a number all the same.
_STRICT = pydantic.ConfigDict(extra="forbid")

Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[int, pydantic.Field(ge=1)]
NonNegative = Annotated[float, pydantic.Field(ge=0)]
Range = tuple[float, float]


def _section(cls):
    cls.__pydantic_config__ = _STRICT
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


@_section
class Data:
    """Where the images come from.

    `source` is what `--data` takes. `validation_fraction` is held out of a data set that has no split of its
    own. Corrupt images beyond 1 % are an error unless `allow_corrupt`.
    """

    source: str = "digits"
    validation_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.2
    allow_corrupt: bool = False


@_section
class Model:
    """What is trained: a named variant, its own sizes, or both, in which case the sizes given here win.

    `weights` is what training starts from: None for random ones, "imagenet", a checkpoint, or a model folder,
    whose architecture and preprocessing are then taken over. None elsewhere means the variant's own value.
    """

    variant: str | None = None
    dim: Positive | None = None
    depth: Positive | None = None
    kernel_size: Positive | None = None
    patch_size: Positive | None = None
    activation: str | None = None
    dropout: Fraction = 0.0
    stochastic_depth: Fraction = 0.0
    weights: str | None = None
    input_size: tuple[Positive, Positive] | None = None
    crop: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    interpolation: Literal[INTERPOLATIONS] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@_section
class Augmentation:
    """What is done to a training image; None or 0 leaves a step out.

    Attributes:
        crop_scale, crop_ratio: random resized crop: its share of the image's area and its aspect.
        crop_interpolation: "bilinear", "bicubic", or "random" for one of the two per image.
        flip: probability of a horizontal flip.
        rand_augment: timm's string ("rand-m9-mstd0.5-inc1"), torchvision's table ("torchvision-n2-m12"), or
            keras-cv's own layer ("keras_cv-n3-m0.5"), which alone makes other images on every run.
        color_jitter: strength of brightness, contrast and saturation jitter.
        random_erasing: probability; `erasing` says what with: "pixel" for noise N(0, 1) in each pixel, or "zero",
            both as of the normalised image.
        mixup, cutmix: alpha of each; with both, every batch gets one of them at even odds.
        mix_group: how many images of a batch are mixed with each other, under one draw, as on one device of
            several; None for the whole batch.
    """

    crop_scale: Range | None = None
    crop_ratio: Range = (3 / 4, 4 / 3)
    crop_interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    flip: Probability = 0.0
    rand_augment: str | None = None
    color_jitter: NonNegative = 0.0
    random_erasing: Probability = 0.0
    erasing: Literal["pixel", "zero"] = "pixel"
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    mix_group: Positive | None = None


@_section
class Optimizer:
    """AdamW (see `training.optimizer`) under the one-cycle triangle (see `training.schedule`).

    `decay` says which parameters decay: "kernels" (those of two or more dimensions) or "all".
    `backbone_multiplier` scales the learning rate of everything below the head, and `layer_decay` that of each
    layer by its distance from the head: of block i (from 0) of `depth` by `layer_decay ** (depth - i)`, of the
    patch embedding by `layer_decay ** (depth + 1)`, as BEiT (arXiv 2106.08254) and timm do. With both, the
    factors multiply.
    """

    learning_rate: NonNegative = 0.01
    weight_decay: NonNegative = 2e-5
    decay: Literal["kernels", "all"] = "kernels"
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    clip_norm: Annotated[float, pydantic.Field(gt=0)] | None = None
    backbone_multiplier: NonNegative = 1.0
    layer_decay: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0


@_section
class Training:
    """How long and how.

    Attributes:
        epochs, batch_size: the batch is the global one, shared out over the devices.
        label_smoothing: off = s / N, on = 1 - s + s / N.
        precision: Keras's policy, or "mixed" for the one that suits the hardware (see `training.precision`). What
            is saved is float32 whatever it says.
        ema: momentum of the weights' exponential moving average, or None. It is the average that is validated
            and saved.
        rematerialize: recompute activations in the backward pass, for less memory and more time.
        early_stopping: stop after so many epochs without a better validation accuracy, and keep the best
            epoch's weights instead of the last's. None never stops early.
        class_weights: weigh each class by the inverse of its frequency.
        freeze_backbone: train the head alone.
    """

    epochs: Positive = 25
    batch_size: Positive = 128
    label_smoothing: Fraction = 0.0
    precision: Literal["float32", "mixed", "mixed_bfloat16", "mixed_float16"] = "float32"
    ema: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = None
    rematerialize: bool = False
    early_stopping: Positive | None = None
    class_weights: bool = False
    freeze_backbone: bool = False


@_section
class Recipe:
    """Everything that decides a training. `Recipe.load("cifar10")` reads one; see `recipes/*.yaml`."""

    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    data: Data = Data()
    model: Model = Model()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()

    @classmethod
    def load(cls, name_or_path, overrides=()):
        """Reads a recipe.

        Args:
            name_or_path: one of `list_recipes()`, or the path of a YAML file.
            overrides: strings like "training.epochs=5", each naming one key.

        Raises:
            ValueError: a key is unknown (the message names the nearest), or a value is not what it should be.
            FileNotFoundError: there is no such recipe.
        """
        values = _parse(*_read(name_or_path))
        for override in overrides:
            _override(values, override)
        return cls.from_dict(values, source=str(name_or_path))

    @classmethod
    def from_dict(cls, values, source="recipe"):
        """Builds a recipe from nested dictionaries, checked as `load` does."""
        try:
            return pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            raise UserError(f"{source}: {'; '.join(_explain(e) for e in error.errors())}") from None

    def to_yaml(self):
        """The whole recipe, every default written out, as `load` reads it."""
        return yaml.safe_dump(pydantic.TypeAdapter(Recipe).dump_python(self, mode="json"), sort_keys=False)

    def differences(self, other):
        """Lines such as "training.epochs: 25 here, 5 there" for what two recipes disagree on."""
        here, there = _flat(dataclasses.asdict(self)), _flat(dataclasses.asdict(other))
        return [f"{key}: {here[key]} here, {there[key]} there" for key in here if here[key] != there[key]]


def list_recipes():
    """The names of the recipes that come with the package."""
    folder = resources.files("keras_convmixer") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _read(name_or_path):
    if str(name_or_path) in list_recipes():
        return (resources.files("keras_convmixer") / "recipes" / f"{name_or_path}.yaml").read_text(), name_or_path
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(list_recipes())
        raise FileNotFoundError(f"{name_or_path}: no such recipe; give a YAML file or one of {known}")
    return path.read_text(encoding="utf-8"), path


def _parse(text, source):
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{source} must hold sections with keys, such as 'training:' with 'epochs: 5'")
    return values


def _override(values, override):
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"{override!r} is not an override; expected KEY=VALUE, such as training.epochs=5")
    *sections, name = key.strip().split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"{override!r}: {section!r} is not a section")
    try:
        values[name] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{override!r}: {text!r} is not a YAML value") from None


def _explain(error):
    key = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] == "unexpected_keyword_argument":
        *sections, name = (str(part) for part in error["loc"])
        return f"unknown key {key!r}{_nearest(sections, name)}"
    return f"{key}: {error['msg'].lower()}, got {error['input']!r}"


def _nearest(sections, name):
    section = Recipe
    for part in sections:
        section = next(field.type for field in dataclasses.fields(section) if field.name == part)
    known = [field.name for field in dataclasses.fields(section)]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    prefix = "".join(f"{part}." for part in sections)
    return f"; did you mean {prefix + nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}"


def _flat(values, prefix=""):
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
