"""What a recipe may say, section by section: the keys, their types and ranges, their defaults."""

import dataclasses
import math
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic

from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.preprocessing import INTERPOLATIONS, LARGEST

Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[int, pydantic.Field(ge=1)]
Side = Annotated[int, pydantic.Field(ge=1, le=LARGEST)]
NonNegative = Annotated[float, pydantic.Field(ge=0)]
Share = Annotated[float, pydantic.Field(gt=0, le=1)]
Ratio = Annotated[float, pydantic.Field(gt=0)]


def _rising(pair):
    if pair[0] > pair[1]:
        raise ValueError("input should be from the least to the most")
    return pair


def _number(value):
    """An optimizer's argument: number, boolean or None. What is none of these is spelt out, as 1e-8 is for YAML."""
    if not isinstance(value, str):
        return value
    try:
        number = int(value) if value.strip("+- ").isdecimal() else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("input should be a number")
    return number


Section = TypeVar("Section")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[Section]) -> type[Section]:
    """A frozen dataclass that is checked when it is made, by hand or from a file.

    It is strict about names and lenient about spelling: YAML reads 1e-3 as a string, and "0.1" is a number all the
    same. Making one raises UserError, naming each key that is unknown or has not the value it should. The text
    below a key is its description, which `recipes.reference` shows.
    """
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    cls = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=config)(cls)
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
        return f"{key}: {error['msg'].removeprefix('Value error, ').lower()}, got {error['input']!r:.200}"
    *sections, name = (str(part) for part in error["loc"])
    for part in sections:
        cls = next(field.type for field in dataclasses.fields(cls) if field.name == part)
    prefix = "".join(f"{part}." for part in sections)
    known = {prefix + field.name: None for field in dataclasses.fields(cls)}
    return f"unknown key {key!r}; {did_you_mean(prefix + name, known)}"


@section
class Data:
    """Where the images come from."""

    source: str | None = "digits"
    """What `--data` takes: a TFDS name, a folder, an archive, or "digits". None where `train` was given the user's
    own batches."""
    validation_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.2
    """Fraction of each class that is held out, of a data set that has no split of its own."""
    allow_corrupt: bool = False
    """Whether more than 1 % of images that cannot be read is no error."""


@section
class Model:
    """What is trained: a named variant, its own sizes, or both, in which case the sizes given here win.

    None means the variant's own value, or that of the model folder in `weights`, where nothing else is said.
    """

    variant: str | None = None
    """A name that `convmixer models` lists."""
    dim: Positive | None = None
    """Channels of every block."""
    depth: Positive | None = None
    """How many blocks."""
    kernel_size: Positive | None = None
    """Side of the depthwise kernels, in patches."""
    patch_size: Positive | None = None
    """Side of a patch, in pixels of the image."""
    activation: str | None = None
    """What follows every convolution: "gelu", "relu" or another name of Keras's."""
    dropout: Fraction = 0.0
    """Rate of the dropout before the head."""
    stochastic_depth: Fraction = 0.0
    """Rate at which the last block's depthwise branch is dropped for a whole image; those of the blocks before it
    rise to it linearly from 0 (arXiv 1603.09382)."""
    weights: str | None = None
    """What training starts from: None for random ones; "imagenet" or "cifar10" for the variant's; a checkpoint; or
    a model folder or a trained model's name, whose architecture and preprocessing are then taken over."""
    depthwise_covariance: tuple[float, float, float] | None = None
    """Draws random depthwise kernels smooth, with these constants (s, v, a), as
    `keras_convmixer.training.depthwise_covariance` says (arXiv 2210.03651). None draws each tap by itself. For
    random weights."""
    whitened_patches: bool = False
    """Whether to begin with a patch embedding that whitens the training images (see
    `keras_convmixer.training.whitened_patches`). For random weights."""
    input_size: tuple[Side, Side] | None = None
    """Height and width of the model's images, in pixels."""
    crop: Annotated[float, pydantic.Field(ge=0.01, le=1)] | None = None
    """Fraction of the resized short side that the centre crop keeps in evaluation."""
    interpolation: Literal[INTERPOLATIONS] | None = None
    """How images are resized in evaluation."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from each of the channels red, green and blue of images scaled to 0–1."""
    std: tuple[float, float, float] | None = None
    """What each of these channels is divided by after that."""


@section
class Augmentation:
    """What is done to a training image; None or 0 leaves a step out."""

    crop_scale: Annotated[tuple[Share, Share], pydantic.AfterValidator(_rising)] | None = None
    """Random resized crop: its share of the image's area, from the least to the most."""
    crop_ratio: Annotated[tuple[Ratio, Ratio], pydantic.AfterValidator(_rising)] = (3 / 4, 4 / 3)
    """Random resized crop: its width by its height, from the least to the most."""
    crop_interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    """How the random crop is resized; "random" is one of the two for each image."""
    scaled_decoding: bool = False
    """Decode a JPEG's random crop at a half, a quarter or an eighth, where that leaves its sides at least twice the
    model's: faster for photographs of many megapixels, whose pixels then differ by a third of a grey level."""
    flip: Probability | Literal["alternating"] = 0.0
    """Probability of a horizontal flip; "alternating" shows each image mirrored in every second epoch, for even
    odds beginning with the first (arXiv 2404.00498)."""
    translation: Annotated[int, pydantic.Field(ge=0)] = 0
    """Shift by so many pixels at most in each direction, whole ones; the image is mirrored at its edges."""
    rand_augment: str | None = None
    """timm's string ("rand-m9-mstd0.5-inc1"), torchvision's table ("torchvision-n2-m12"), or keras-cv's own layer
    ("keras_cv-n3-m0.5"), which alone makes other images on every run."""
    color_jitter: NonNegative = 0.0
    """Strength of brightness, contrast and saturation jitter: each factor is drawn from 1 ± this, not below 0."""
    random_erasing: Probability = 0.0
    """Probability that a rectangle is erased."""
    erasing: Literal["pixel", "zero"] = "pixel"
    """What a rectangle is erased with: "pixel" for noise N(0, 1) in each pixel, or "zero", both as of the
    normalised image."""
    cutout: Annotated[int, pydantic.Field(ge=0)] = 0
    """Side, in pixels, of a square of the mean colour in every image."""
    mixup: NonNegative = 0.0
    """Alpha of mixup. With both mixup and cutmix, every batch gets one of them at even odds."""
    cutmix: NonNegative = 0.0
    """Alpha of cutmix."""
    mix_group: Positive | None = None
    """How many images of a batch are mixed with each other, under one draw, as on one device of several; None for
    the whole batch."""


@section
class Optimizer:
    """The optimizer and how its learning rate goes."""

    name: str = "adamw"
    """PyTorch's "adamw"; "muon", which is Muon on the pointwise kernels and adamw on the rest (see
    `keras_convmixer.training.muon`); or the name of any other of Keras's optimizers, such as "sgd" or "lion"."""
    arguments: dict[str, Annotated[Any, pydantic.AfterValidator(_number)]] = pydantic.Field(default_factory=dict)
    """Of Keras's optimizer by `name`, as {"momentum": 0.9}; of muon, `momentum` and `matrix_multiplier`; adamw has
    keys of its own here."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """The authors' triangle, "one_cycle"; "cosine", to 0; or "constant"."""
    warmup_epochs: NonNegative = 0.0
    """Epochs over which a cosine or a constant first rises from 0."""
    learning_rate: NonNegative = 0.01
    """The peak of the schedule."""
    weight_decay: NonNegative = 2e-5
    """Each step subtracts `learning_rate * weight_decay * w`."""
    decay: Literal["kernels", "all"] = "kernels"
    """Which parameters decay: "kernels" (those of two or more dimensions) or "all"."""
    beta_1: Fraction = 0.9
    """Decay rate of the first moment. adamw and muon only."""
    beta_2: Fraction = 0.999
    """Decay rate of the second moment. adamw and muon only."""
    epsilon: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    """Added to the root of the second moment. Of adamw and muon; another optimizer has its own."""
    clip_norm: Annotated[float, pydantic.Field(gt=0)] | None = None
    """Largest norm of the whole gradient; None does not clip."""
    backbone_multiplier: NonNegative = 1.0
    """Scales the learning rate of everything below the head. adamw and muon only."""
    layer_decay: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    """Scales the learning rate of each layer by its distance from the head: of block i (from 0) of `depth` by
    `layer_decay ** (depth - i)`, of the patch embedding by `layer_decay ** (depth + 1)`, as BEiT (arXiv 2106.08254)
    and timm do. With `backbone_multiplier`, the factors multiply. adamw and muon only."""


@section
class Training:
    """How long and how."""

    epochs: Positive = 25
    """How often each image is shown."""
    batch_size: Positive = 128
    """Images in a step: the global batch, shared out over the devices."""
    label_smoothing: Fraction = 0.0
    """s, where a label among N classes becomes 1 - s + s / N and the others s / N."""
    precision: Literal["float32", "mixed", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's policy, or "mixed" for the one that suits the hardware (see `keras_convmixer.training.dtype_policy`).
    What is saved is float32 whatever it says."""
    ema: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = None
    """Momentum of the weights' exponential moving average, or None. It is the average that is validated and saved.
    Of BatchNorm's statistics on several devices it has those of the first."""
    gradient_accumulation: Positive = 1
    """In how many parts a device takes its share of a batch, one after another, for less memory. It is one step,
    with the mean of their gradients; BatchNorm sees one part at a time."""
    batch_norm: Literal["replica", "synchronized"] = "replica"
    """Of several devices, whether each normalises by its own images, as the authors did, the statistics averaged at
    the end of an epoch, or by those of all."""
    rematerialize: bool = False
    """Recompute activations in the backward pass, for less memory and more time."""
    early_stopping: Positive | None = None
    """Stop after so many epochs without a better validation accuracy, and keep the best epoch's weights instead of
    the last's. None never stops early."""
    class_weights: bool = False
    """Weigh each class by the inverse of its frequency."""
    freeze_backbone: bool | Literal["auto"] = False
    """Train the head alone. "auto" does so where there is no GPU."""
    cached_crops: Positive | None = None
    """Of a frozen backbone compute the features of so many crops of each image once, and train the head on these
    (see `keras_convmixer.training.frozen_features`), on one device and of the recipe's own data. None computes
    them anew in every epoch."""
    progressive_resizing: tuple[tuple[Positive, Positive], ...] = ()
    """(side, epochs) pairs: begin with so many epochs on images of that side in pixels, then those of the next
    pair, at last the rest at the model's own size (see `keras_convmixer.training.progressive_resizing`)."""
    checkpoint_minutes: NonNegative | None = 10.0
    """Minutes from one checkpoint to the next, besides that at the end of every epoch; 0 writes one after every
    step, None at the ends alone."""
    checkpoints_kept: Positive = 2
    """How many checkpoints are kept."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """Where the loss is not finite any more, "stop"; or "rollback" to the last checkpoint, with half the learning
    rate, at most three times."""
