"""The named ConvMixers, as data: sizes, preprocessing, published accuracy and weights."""

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from keras_convmixer import shipped
from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)

# Weights may differ in these from a model that was asked for with them in so many words.
RESAMPLED = {"patch_size", "kernel_size"}

CIFAR10 = Preprocessing((32, 32), 1.0, "bilinear", CIFAR10_MEAN, CIFAR10_STD)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table.

    `parameters` is the `parts.parameter_count` with `num_classes` outputs. `top1` and `top5` are percentages on the
    ImageNet validation set as timm measured them for published weights, otherwise the paper's, on `dataset`.
    `release` names its file in the authors' release of weights, where it is in it.
    """

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    parameters: int
    activation: str = "gelu"
    num_classes: int = 1000
    preprocessing: Preprocessing = Preprocessing()
    dataset: str = "ImageNet"
    top1: float | None = None
    top5: float | None = None
    release: str | None = None

    def arguments(self):
        """The keyword arguments that give this variant to `ConvMixer`."""
        names = ("dim", "depth", "kernel_size", "patch_size", "activation", "num_classes")
        return {name: getattr(self, name) for name in names} | {
            "mean": list(self.preprocessing.mean),
            "std": list(self.preprocessing.std),
        }


VARIANTS = {
    "convmixer_1536_20": Variant(
        1536, 20, 9, 7, 51_625_960, top1=81.382, top5=95.618, release="convmixer_1536_20_ks9_p7"
    ),
    "convmixer_1536_20_ks9_p14": Variant(1536, 20, 9, 14, 52_303_336, top1=78.9),
    "convmixer_768_32": Variant(
        768, 32, 7, 7, 21_110_248, "relu", top1=80.158, top5=95.070, release="convmixer_768_32_ks7_p7_relu"
    ),
    "convmixer_1024_20_ks9_p14": Variant(
        1024, 20, 9, 14, 24_383_464, top1=76.944, top5=93.364, release="convmixer_1024_20_ks9_p14"
    ),
    "convmixer_256_8_ks5_p2": Variant(
        256, 8, 5, 2, 594_186, num_classes=10, preprocessing=CIFAR10, dataset="CIFAR-10", top1=92.60
    ),
    "convmixer_256_8_ks9_p1": Variant(
        256, 8, 9, 1, 706_570, num_classes=10, preprocessing=CIFAR10, dataset="CIFAR-10", top1=96.03
    ),
    "convmixer_tiny": Variant(
        32, 2, 3, 4, 4_970, num_classes=10, preprocessing=CIFAR10, dataset="none: a small model for tests"
    ),
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(VARIANTS)


def weights_of(name):
    """What `weights` of `create_model` may name for a variant, besides files: ["imagenet"], ["cifar10"] or []."""
    return ["imagenet"] * bool(get_variant(name).release) + ["cifar10"] * (name in shipped.names())


def weight_sources(name):
    """Addresses of a variant's ImageNet weights, under the MIT licence: timm's edition, then the authors' own."""
    release = get_variant(name).release
    if release is None:
        having = ", ".join(other for other, variant in VARIANTS.items() if variant.release)
        raise UserError(f"no weights are published for {name}; they are for {having}")
    return (
        f"https://huggingface.co/timm/{name}.in1k/resolve/main/model.safetensors",
        f"https://github.com/tmp-iclr/convmixer/releases/download/v1.0/{release}.pth.tar",
    )


def get_variant(name):
    """The `Variant` of a name. Raises ValueError, with the nearest name, for an unknown one."""
    if name not in VARIANTS:
        raise UserError(f"unknown model {name!r}; {did_you_mean(name, VARIANTS, cutoff=0.4)}")
    return VARIANTS[name]


def alike(sizes):
    """The first `Variant` with the `dim`, `depth`, `kernel_size` and `patch_size` of a dictionary, or None."""
    names = ("dim", "depth", "kernel_size", "patch_size")
    return next((v for v in VARIANTS.values() if all(getattr(v, name) == sizes[name] for name in names)), None)


def create_model(name: str, /, **arguments: Any) -> "keras.Model":
    """Builds a named variant.

    Args:
        name: one of `list_models()`.
        **arguments: those of `ConvMixer`; one given here wins over the variant's own. `input_shape` defaults to
            the size the variant was made for. `weights` may also be "imagenet": the published ones, downloaded
            once into the cache; or "cifar10": those that come with the package. Where `patch_size` or
            `kernel_size` is given, weights for another are resampled.

    Returns:
        A `keras.Model`; see `ConvMixer` for its input and output.

    Raises:
        ValueError: the name is unknown, an argument out of range, or the weights do not fit. TypeError: an argument
        is unknown. OSError: the weights are not there or cannot be downloaded.
    """
    from keras_convmixer.model import ConvMixer

    variant = get_variant(name)
    known = inspect.signature(ConvMixer).parameters
    for argument in arguments:
        if argument not in known:
            raise TypeError(
                f"create_model() got an unknown argument {argument!r}; {did_you_mean(argument, known, cutoff=0.6)}"
            )
    weights = arguments.pop("weights", None)
    may_resample = arguments.keys() & RESAMPLED
    arguments = _completed(variant, {"name": name} | arguments)
    if weights is None:
        return ConvMixer(**arguments)
    pretrained = {"imagenet": _published, "cifar10": _shipped}.get(weights, lambda name: weights)
    return with_weights(pretrained(name), arguments, may_resample=may_resample)


def convert_checkpoint(source, *, ema=False, image_size=None, **arguments):
    """Builds the ConvMixer that a checkpoint holds, with its weights.

    Args:
        source: a PyTorch or safetensors file or another source of `weights.load.load_weights`.
        ema: whether to take a PyTorch checkpoint's averaged weights.
        image_size: height and width of its images, as `input_shape` without the channels.
        **arguments: those of `ConvMixer`; one given here wins over what the checkpoint shows. A .keras file or a
            model folder shows all of them. Others do not show `activation`, which must be given unless a variant of
            this size is known; that variant also gives the defaults of `input_shape`, `mean` and `std`.

    Returns:
        A `keras.Model`, as of `ConvMixer`.

    Raises:
        ValueError: the checkpoint cannot be used, or its activation is not known. OSError: there is no such file,
        or it cannot be downloaded.
    """
    from keras_convmixer.weights import load, state_dict

    path = load.fetch(source)
    with load.open_state(path, ema=ema) as (state, stated):
        found = state_dict.architecture(state)
    channels, num_classes = found.pop("channels"), found.pop("num_classes")
    if None in (channels, *found.values()):
        raise UserError(f"{source} does not hold a ConvMixer: its stem or its first block is missing")
    variant = alike(found)
    if not variant and "activation" not in stated | arguments:
        raise UserError(
            f"{source} does not show its activation, and a ConvMixer with {found} is no known variant: "
            'give it, most often activation="gelu"'
        )
    variant = variant or Variant(**found, parameters=0)
    if arguments.keys() & {"mean", "std"}:  # given to a model that has no normalisation, they make one
        stated.pop("include_preprocessing", None)
    if image_size:
        preprocessing = dataclasses.replace(variant.preprocessing, input_size=image_size)
        variant = dataclasses.replace(variant, preprocessing=preprocessing)
        stated.pop("input_shape", None)
    found |= {"include_top": False} if num_classes is None else {"num_classes": num_classes}
    may_resample = arguments.keys() & RESAMPLED
    arguments = _completed(variant, found | arguments, channels, stated)
    return with_weights(path, arguments, ema=ema, may_resample=may_resample)


def with_weights(source, arguments, **options):
    """The `ConvMixer` of these arguments with weights from a source, see `weights.load.load_weights`."""
    from keras import Model

    from keras_convmixer.model import ConvMixer
    from keras_convmixer.weights.load import load_weights
    from keras_convmixer.weights.undrawn import undrawn

    with undrawn():
        model = ConvMixer(**arguments)
    tensor = arguments.get("input_tensor")
    # The same layers without those that made the tensor, which no file of weights knows.
    bare = model if tensor is None else Model(tensor, model.output, name=model.name)
    load_weights(bare, source, **options)
    return model


def _completed(variant, given, channels=3, stated=None):
    """The arguments given, with those that a file states or else the variant's own for what is not given."""
    from keras import KerasTensor, config

    from keras_convmixer.model import channels_of

    arguments = variant.arguments() | (stated or {})
    input_shape, tensor = given.get("input_shape"), given.get("input_tensor")
    if input_shape is None and isinstance(tensor, KerasTensor):
        input_shape = tensor.shape[1:]
    elif input_shape is None:
        size, first = variant.preprocessing.input_size, config.image_data_format() == "channels_first"
        input_shape = arguments.get("input_shape", (channels, *size) if first else (*size, channels))
    for name in ("mean", "std"):
        if len(arguments[name]) not in (1, channels_of(input_shape)):
            # It is for other channels.
            del arguments[name]
    return arguments | given | {"input_shape": input_shape}


def _shipped(name):
    having = [other for other in VARIANTS if "cifar10" in weights_of(other)]
    if name not in having:
        raise UserError(f"no CIFAR-10 weights come with {name}; they do with {', '.join(having) or 'none here'}")
    return shipped.folder(name)


def _published(name):
    from keras_convmixer.weights.download import place
    from keras_convmixer.weights.load import fetch

    first, second = weight_sources(name)
    try:
        return fetch(first)
    except OSError as error:
        raise OSError(
            f"{error}. Fetched by hand, it may lie at {place(first)}; {second} has the same weights: "
            "of FILE, either of the two, `convmixer convert FILE --out model.keras` makes a model for the other "
            "commands, and a training starts from it with --set model.weights=FILE (in Python: weights=FILE)"
        ) from error
