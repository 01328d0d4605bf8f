"""What a recipe may say, section by section: the keys, their types and ranges, their defaults."""

import dataclasses
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic

from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.preprocessing import INTERPOLATIONS

Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[int, pydantic.Field(ge=1)]
NonNegative = Annotated[float, pydantic.Field(ge=0)]
Range = tuple[float, float]


Section = TypeVar("Section")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[Section]) -> type[Section]:
    """A frozen dataclass that is checked when it is made, by hand or from a file.

    It is strict about names and lenient about spelling: YAML reads 1e-3 as a string, and "0.1" is a number all the
    same. Making one raises UserError, naming each key that is unknown or has not the value it should.
    """
    cls = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))(cls)
    made = cls.__init__

    def __init__(self, **values):
        try:
            made(self, **values)
        except pydantic.ValidationError as error:
            raise UserError(explained(cls, error)) from None

    cls.__init__ = __init__
    return cls


def explained(cls, error):
    """What pydantic found wrong with the values of a section, in one line."""
    return "; ".join(_explained(cls, one) for one in error.errors())


def _explained(cls, error):
    key = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] != "unexpected_keyword_argument":
        return f"{key}: {error['msg'].lower()}, got {error['input']!r:.200}"
    *sections, name = (str(part) for part in error["loc"])
    for part in sections:
        cls = next(field.type for field in dataclasses.fields(cls) if field.name == part)
    prefix = "".join(f"{part}." for part in sections)
    known = {prefix + field.name: None for field in dataclasses.fields(cls)}
    return f"unknown key {key!r}; {did_you_mean(prefix + name, known)}"


@section
class Data:
    """Where the images come from.

    `source` is what `--data` takes. `validation_fraction` is held out of a data set that has no split of its
    own. Corrupt images beyond 1 % are an error unless `allow_corrupt`.
    """

    source: str = "digits"
    validation_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.2
    allow_corrupt: bool = False


@section
class Model:
    """What is trained: a named variant, its own sizes, or both, in which case the sizes given here win.

    `weights` is what training starts from: None for random ones, "imagenet", a checkpoint, or a model folder,
    whose architecture and preprocessing are then taken over. `depthwise_covariance` draws random depthwise kernels
    as `training.depthwise_covariance` says, with these constants; `whitened_patches` begins with a patch embedding
    that whitens the training images (see `training.whitened_patches`). Both are for random weights. None elsewhere
    means the variant's own value.
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
    depthwise_covariance: tuple[float, float, float] | None = None
    whitened_patches: bool = False
    input_size: tuple[Positive, Positive] | None = None
    crop: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    interpolation: Literal[INTERPOLATIONS] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@section
class Augmentation:
    """What is done to a training image; None or 0 leaves a step out.

    Attributes:
        crop_scale, crop_ratio: random resized crop: its share of the image's area and its aspect.
        crop_interpolation: "bilinear", "bicubic", or "random" for one of the two per image.
        flip: probability of a horizontal flip; "alternating" shows each image mirrored in every second epoch, for
            even odds beginning with the first (arXiv 2404.00498).
        translation: shift by so many whole pixels at most in each direction; the image is mirrored at its edges.
        rand_augment: timm's string ("rand-m9-mstd0.5-inc1"), torchvision's table ("torchvision-n2-m12"), or
            keras-cv's own layer ("keras_cv-n3-m0.5"), which alone makes other images on every run.
        color_jitter: strength of brightness, contrast and saturation jitter.
        random_erasing: probability; `erasing` says what with: "pixel" for noise N(0, 1) in each pixel, or "zero",
            both as of the normalised image.
        cutout: side, in pixels, of a square of the mean colour in every image.
        mixup, cutmix: alpha of each; with both, every batch gets one of them at even odds.
        mix_group: how many images of a batch are mixed with each other, under one draw, as on one device of
            several; None for the whole batch.
    """

    crop_scale: Range | None = None
    crop_ratio: Range = (3 / 4, 4 / 3)
    crop_interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    flip: Probability | Literal["alternating"] = 0.0
    translation: Annotated[int, pydantic.Field(ge=0)] = 0
    rand_augment: str | None = None
    color_jitter: NonNegative = 0.0
    random_erasing: Probability = 0.0
    erasing: Literal["pixel", "zero"] = "pixel"
    cutout: Annotated[int, pydantic.Field(ge=0)] = 0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    mix_group: Positive | None = None


@section
class Optimizer:
    """The optimizer and how its learning rate goes (see `training.optimizer` and `training.schedule`).

    Attributes:
        name: "adamw", PyTorch's; "muon", which is Muon on the pointwise kernels and adamw on the rest (see
            `training.muon`); or the name of any other of Keras's optimizers, such as "sgd" or "lion".
        arguments: of Keras's optimizer by that name, as {"momentum": 0.9}; of muon, `momentum` and
            `matrix_multiplier`; adamw has keys of its own here.
        schedule: "one_cycle", the authors' triangle; "cosine", to 0; or "constant". learning_rate is the peak.
        warmup_epochs: over which a cosine or a constant first rises from 0, in epochs.
        weight_decay: each step subtracts `learning_rate * weight_decay * w`.
        decay: which parameters decay: "kernels" (those of two or more dimensions) or "all".
        beta_1, beta_2, epsilon: of adamw, also in muon.
        clip_norm: largest norm of the whole gradient, or None.
        backbone_multiplier: scales the learning rate of everything below the head. adamw and muon only.
        layer_decay: scales that of each layer by its distance from the head: of block i (from 0) of `depth` by
            `layer_decay ** (depth - i)`, of the patch embedding by `layer_decay ** (depth + 1)`, as BEiT (arXiv
            2106.08254) and timm do. With both, the factors multiply. adamw and muon only.
    """

    name: str = "adamw"
    arguments: dict[str, Any] = pydantic.Field(default_factory=dict)
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    warmup_epochs: NonNegative = 0.0
    learning_rate: NonNegative = 0.01
    weight_decay: NonNegative = 2e-5
    decay: Literal["kernels", "all"] = "kernels"
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    clip_norm: Annotated[float, pydantic.Field(gt=0)] | None = None
    backbone_multiplier: NonNegative = 1.0
    layer_decay: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0


@section
class Training:
    """How long and how.

    Attributes:
        epochs, batch_size: the batch is the global one, shared out over the devices.
        label_smoothing: off = s / N, on = 1 - s + s / N.
        precision: Keras's policy, or "mixed" for the one that suits the hardware (see `training.dtype_policy`).
            What is saved is float32 whatever it says.
        ema: momentum of the weights' exponential moving average, or None. It is the average that is validated
            and saved.
        rematerialize: recompute activations in the backward pass, for less memory and more time.
        early_stopping: stop after so many epochs without a better validation accuracy, and keep the best
            epoch's weights instead of the last's. None never stops early.
        class_weights: weigh each class by the inverse of its frequency.
        freeze_backbone: train the head alone. "auto" does so where there is no GPU.
        cached_crops: of a frozen backbone compute the features of so many crops of each image once, and train the
            head on these (see `training.frozen_features`). None computes them anew in every epoch.
        progressive_resizing: (side, epochs) pairs: begin with so many epochs on images of that side in pixels, then
            those of the next pair, at last the rest at the model's own size (see `training.progressive_resizing`).
        checkpoint_minutes: write a checkpoint so often, besides that at the end of every epoch; 0 after every
            step, None at the ends alone.
        checkpoints_kept: how many of them.
        on_nan: where the loss is not finite any more, "stop"; or "rollback" to the last checkpoint, with half the
            learning rate, at most three times.
    """

    epochs: Positive = 25
    batch_size: Positive = 128
    label_smoothing: Fraction = 0.0
    precision: Literal["float32", "mixed", "mixed_bfloat16", "mixed_float16"] = "float32"
    ema: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = None
    rematerialize: bool = False
    early_stopping: Positive | None = None
    class_weights: bool = False
    freeze_backbone: bool | Literal["auto"] = False
    cached_crops: Positive | None = None
    progressive_resizing: tuple[tuple[Positive, Positive], ...] = ()
    checkpoint_minutes: NonNegative | None = 10.0
    checkpoints_kept: Positive = 2
    on_nan: Literal["stop", "rollback"] = "stop"
