"""The named ConvMixers, as data: sizes, preprocessing and published accuracy."""

import dataclasses
import difflib
import inspect

from keras_convmixer.preprocessing import Preprocessing

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)

CIFAR10 = Preprocessing((32, 32), 1.0, "bilinear", CIFAR10_MEAN, CIFAR10_STD)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table.

    `parameters` counts the trainable ones with `num_classes` outputs. `top1` and `top5` are percentages on the
    ImageNet validation set as timm measured them for published weights, otherwise the paper's, on `dataset`.
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

    def arguments(self):
        """The keyword arguments that give this variant to `ConvMixer`."""
        names = ("dim", "depth", "kernel_size", "patch_size", "activation", "num_classes")
        return {name: getattr(self, name) for name in names} | {
            "mean": list(self.preprocessing.mean),
            "std": list(self.preprocessing.std),
        }


VARIANTS = {
    "convmixer_1536_20": Variant(1536, 20, 9, 7, 51_625_960, top1=81.382, top5=95.618),
    "convmixer_1536_20_ks9_p14": Variant(1536, 20, 9, 14, 52_303_336, top1=78.9),
    "convmixer_768_32": Variant(768, 32, 7, 7, 21_110_248, activation="relu", top1=80.158, top5=95.070),
    "convmixer_1024_20_ks9_p14": Variant(1024, 20, 9, 14, 24_383_464, top1=76.944, top5=93.364),
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


def list_models():
    """The names that `create_model` takes."""
    return list(VARIANTS)


def get_variant(name):
    """The `Variant` of a name. Raises ValueError, with the nearest name, for an unknown one."""
    if name not in VARIANTS:
        nearest = difflib.get_close_matches(str(name), VARIANTS, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(VARIANTS)}"
        raise ValueError(f"unknown model {name!r}; {hint}")
    return VARIANTS[name]


def create_model(name, **arguments):
    """Builds a named variant.

    Args:
        name: one of `list_models()`.
        **arguments: those of `ConvMixer`; one given here wins over the variant's own. `input_shape` defaults to
            the size the variant was made for.

    Returns:
        A `keras.Model`; see `ConvMixer` for its input and output.

    Raises:
        ValueError: the name is unknown, or an argument out of range. TypeError: an argument is unknown.
    """
    import keras

    from keras_convmixer.model import ConvMixer

    variant = get_variant(name)
    known = inspect.signature(ConvMixer).parameters
    for argument in arguments:
        if argument not in known:
            nearest = difflib.get_close_matches(argument, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}"
            raise TypeError(f"create_model() got an unknown argument {argument!r}{hint}")
    defaults = variant.arguments()
    shape = arguments.get("input_shape")
    channels_first = keras.config.image_data_format() == "channels_first"
    if shape is None:
        shape = variant.preprocessing.input_size
        shape = (3, *shape) if channels_first else (*shape, 3)
    elif (shape[0] if channels_first else shape[-1]) != 3:
        # The variant's mean and std are those of three channels.
        del defaults["mean"], defaults["std"]
    return ConvMixer(**defaults | {"name": name} | arguments | {"input_shape": shape})
