"""What a training step will take, before it is tried."""

import psutil

from keras_convmixer.errors import UserError
from keras_convmixer.parts import architecture

# How many maps of a block's size a step holds for each block and image, by precision and whether activations are
# rematerialized: measured on CPUs with ConvMixer-256/8 at batch 512 and ConvMixer-768/32 at batch 8 and 16, but for
# the last, which is half of float32's.
_MAPS = {("float32", False): 9.8, ("float32", True): 5.4, ("mixed", False): 4.6, ("mixed", True): 2.7}
_REST = 1.0e9  # TensorFlow itself and the input


def step_bytes(sizes, input_size, batch_size, precision="float32", rematerialize=False):
    """An estimate of the largest resident memory of a training on a CPU, in bytes; right to about a quarter.

    Args:
        sizes: `dim`, `depth` and `patch_size` of the model. input_size: (height, width) in pixels.
        batch_size: images in a step. precision: a dtype policy. rematerialize: as in a recipe.
    """
    patches = (input_size[0] // sizes["patch_size"]) * (input_size[1] // sizes["patch_size"])
    kind = "mixed" if precision.startswith("mixed") else "float32"
    return _REST + _MAPS[kind, rematerialize] * 4 * patches * sizes["dim"] * sizes["depth"] * batch_size


def run_bytes(recipe, bundle, precision, processes=1):
    """The `step_bytes` of a recipe's training of a `Bundle`, in a dtype policy, in each process that shares it."""
    size, training = bundle.preprocessing.input_size, recipe.training
    at_once = -(-training.batch_size // (training.gradient_accumulation * processes))
    return step_bytes(architecture(bundle.model), size, at_once, precision, training.rematerialize)


def check(needed, available=None):
    """Returns the memory that is available. Raises UserError, with what to do, where a step needs more."""
    available = psutil.virtual_memory().available if available is None else available
    if needed > available:
        raise UserError(
            f"a step would take about {needed / 1e9:.0f} GB and there are {available / 1e9:.0f} GB: set "
            "training.freeze_backbone=true and training.cached_crops=8 to train the head alone, or a smaller "
            "training.batch_size, or training.gradient_accumulation=2 or more, or training.rematerialize=true"
        )
    return available
