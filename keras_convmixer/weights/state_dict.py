"""ConvMixer's weights between PyTorch's state dicts and Keras's layers.

Two layouts of names are known: timm's (`stem.0.weight`, `blocks.3.0.fn.0.weight`, `head.weight`) and that of the
authors' nn.Sequential (`0.weight`, `6.0.fn.0.weight`, and last the head's `N.weight`).
"""

import re
import warnings

import numpy as np
from keras import ops
from safetensors.numpy import save

from keras_convmixer import files
from keras_convmixer.parts import parts
from keras_convmixer.weights import resample
from keras_convmixer.weights.stored_array import CheckpointError

# What a layer of each kind holds, in the order of Keras's variables, and the axes that turn it into Keras's order.
CONVOLUTION = {"weight": (2, 3, 1, 0), "bias": (0,)}
DEPTHWISE = {"weight": (2, 3, 0, 1), "bias": (0,)}
NORM = {"weight": (0,), "bias": (0,), "running_mean": (0,), "running_var": (0,)}
LINEAR = {"weight": (1, 0), "bias": (0,)}


def layout(depth, sequential=False):
    """Keras layer name → (name in the state dict, what it holds).

    Args:
        depth: number of blocks. sequential: the authors' layout instead of timm's.
    """
    stem, head = ("", f"{depth + 5}") if sequential else ("stem.", "head")
    layers = {
        "patch_embedding": (f"{stem}0", CONVOLUTION),
        "patch_embedding_norm": (f"{stem}2", NORM),
    }
    for i in range(depth):
        block = f"{i + 3}" if sequential else f"blocks.{i}"
        layers[f"block_{i}_depthwise"] = (f"{block}.0.fn.0", DEPTHWISE)
        layers[f"block_{i}_depthwise_norm"] = (f"{block}.0.fn.2", NORM)
        layers[f"block_{i}_pointwise"] = (f"{block}.1", CONVOLUTION)
        layers[f"block_{i}_pointwise_norm"] = (f"{block}.3", NORM)
    return layers | {"head": (head, LINEAR)}


def architecture(state):
    """The sizes of the ConvMixer that a state dict holds.

    Returns:
        A dictionary of `dim`, `depth`, `kernel_size`, `patch_size`, `channels` and `num_classes`; None for what the
        state dict does not show. The activation leaves no trace in the weights.
    """
    return _sizes({name: array.shape for name, array in state.items()})


def state_dict(model):
    """The weights of a ConvMixer as numpy arrays in timm's layout.

    Raises:
        ValueError: the model has weights that timm's ConvMixer has no place for, or lacks some.
    """
    state = {}
    for name, (variable, axes) in _variables(model).items():
        # A copy: a plain transpose would be saved in Keras's order under PyTorch's shape.
        state[name] = np.ascontiguousarray(np.transpose(ops.convert_to_numpy(variable), np.argsort(axes)))
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    head = parts(model).head
    if head and not head.use_bias:
        # timm's has one.
        state["head.bias"] = np.zeros(head.units, np.float32)
    return state


def of_layers(layers):
    """The weights of a ConvMixer's layers in timm's layout.

    Args:
        layers: layer name → its arrays, in the order of Keras's variables.

    Returns:
        Names to `StoredArray`s. What no ConvMixer has keeps the name of its layer.
    """
    depth = sum(re.fullmatch(r"block_\d+_depthwise", name) is not None for name in layers)
    names, state = layout(depth), {}
    for layer, arrays in layers.items():
        name, kinds = names.get(layer, (layer, {}))
        held = [*kinds.items(), *((str(i), ()) for i in range(len(kinds), len(arrays)))]
        for (part, axes), array in zip(held, arrays):
            state[f"{name}.{part}"] = array.transposed(np.argsort(axes)) if len(axes) == len(array.shape) else array
    return state


def save_torch(model, path):
    """Writes a model as a safetensors file in timm's layout, which timm and PyTorch load strictly.

    Args:
        model: a `ConvMixer`, with its head or without. path: the file to write.

    Raises:
        ValueError: the model is not a ConvMixer.
    """
    with files.replacing(path) as temporary:
        # Not save_file, which gives the file to its owner alone.
        temporary.write_bytes(save(state_dict(model), metadata={"format": "pt"}))


def load_state(model, state, *, may_resample=(), new_head=False):
    """Copies a state dict of either layout into a model's layers.

    What the model lacks of the checkpoint is an error, and the reverse, with these exceptions: a head for another
    number of classes is started anew, with a warning; a model without its top leaves the head out; and the patch
    embedding is adapted to the model's number of input channels. Everything is read twice, to be checked before the
    first of it is copied: no more than one array is in memory at a time.

    Args:
        model: a `ConvMixer`.
        state: names to arrays or `StoredArray`s. Not changed.
        may_resample: of "patch_size" and "kernel_size", those in which the checkpoint may differ from the model;
            it is then resampled.
        new_head: whether to start the head anew although it has as many classes, since they are others.

    Raises:
        CheckpointError: naming everything that is missing, unexpected or of another shape; or what is not finite or
            cannot be read. The model is unchanged.
        ValueError: the model is not a ConvMixer.
    """
    variables = _variables(model, _is_sequential(state))
    shapes = {
        name: tuple(variable.shape[axis] for axis in np.argsort(axes))
        for name, (variable, axes) in variables.items()
    }
    ours, theirs = _sizes(shapes), architecture(state)
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}

    name, _ = layout(theirs["depth"], _is_sequential(state))["head"]
    head = {f"{name}.{part}" for part in LINEAR}
    another = theirs["num_classes"] not in (None, ours["num_classes"])
    new_head = (another or new_head) and head <= state.keys()
    if new_head:
        state = {name: array for name, array in state.items() if name not in head}
        shapes = {name: shape for name, shape in shapes.items() if name not in head}

    state = {name: _adapted(name, array, ours, theirs, may_resample) for name, array in state.items()}
    _check(state, shapes, ours, theirs)
    for name in shapes:
        variable, _ = variables[name]
        check_finite(_as_variable(state[name], *variables[name]), variable)
    own = parts(model).head
    if new_head and own:
        found = f"{theirs['num_classes']} classes, the model's {own.units}" if another else "other classes"
        warnings.warn(f"the checkpoint's head has {found}: the model starts with a new head", stacklevel=2)
    for name in shapes:
        variable, _ = variables[name]
        variable.assign(_as_variable(state[name], *variables[name]))
    if new_head and own:
        own.kernel.assign(own.kernel_initializer(own.kernel.shape, own.kernel.dtype))
        if own.use_bias:
            own.bias.assign(own.bias_initializer(own.bias.shape, own.bias.dtype))


def check_finite(array, variable):
    """Raises CheckpointError, naming the Keras variable that an array is for, unless all of it is finite."""
    if not np.isfinite(array).all():
        layer, _, name = variable.path.rpartition("/")
        raise CheckpointError(f"{name} of the layer {layer} is not finite: the training that gave it diverged")


def _is_sequential(state):
    return any(name[:1].isdigit() for name in state)


def _sizes(shapes):
    depth = sum(re.fullmatch(r"(blocks\.)?\d+\.0\.fn\.0\.weight", name) is not None for name in shapes)
    names = layout(depth, _is_sequential(shapes))

    def shape(layer, rank):
        name, _ = names.get(layer, ("", None))
        found = shapes.get(f"{name}.weight", ())
        return found if len(found) == rank else (None,) * rank

    dim, channels, _, patch_size = shape("patch_embedding", 4)
    return {
        "dim": dim,
        "depth": depth,
        "kernel_size": shape("block_0_depthwise", 4)[-1],
        "patch_size": patch_size,
        "channels": channels,
        "num_classes": shape("head", 2)[0],
    }


def _variables(model, sequential=False):
    """Name in the state dict → (Keras variable, axes that turn the state dict's array into it)."""
    depth = len(parts(model).blocks)
    layers = {layer.name: layer for layer in model.layers}
    names = layout(depth, sequential)
    return {
        f"{name}.{part}": (variable, axes)
        for layer, (name, parts) in names.items()
        if layer in layers
        for (part, axes), variable in zip(parts.items(), layers[layer].weights, strict=layer != "head")
    }


def _as_variable(array, variable, axes):
    dtype = variable.dtype if variable.dtype in ("float16", "float64") else "float32"
    with np.errstate(over="ignore"):  # What becomes infinite is refused.
        return np.array(np.transpose(array, axes), dtype, order="C")


def _adapted(name, array, ours, theirs, may_resample):
    def differ(size):
        return len(array.shape) == 4 and ours[size] != theirs[size]

    if name in ("stem.0.weight", "0.weight"):
        if differ("channels"):
            array = resample.channels(np.asarray(array), ours["channels"])
        if differ("patch_size") and "patch_size" in may_resample:
            array = resample.patch_embedding(np.asarray(array), ours["patch_size"])
    elif name.endswith(".0.fn.0.weight") and differ("kernel_size") and "kernel_size" in may_resample:
        array = resample.depthwise(np.asarray(array), ours["kernel_size"])
    return array


def _check(state, shapes, ours, theirs):
    def is_float(dtype):
        # ml_dtypes' bfloat16 is of kind V.
        return dtype.kind == "f" or dtype.name == "bfloat16"

    sizes = ("dim", "depth", "kernel_size", "patch_size")
    others = [f"{size} {theirs[size]} instead of {ours[size]}" for size in sizes if theirs[size] != ours[size]]
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes]
    misshaped = [
        f"{name} {array.shape} {array.dtype} instead of {shapes[name]} float"
        for name, array in state.items()
        if name in shapes and (array.shape != tuple(shapes[name]) or not is_float(array.dtype))
    ]
    if missing or unexpected or misshaped:
        kinds = {"it has": others, "missing": missing, "unexpected": unexpected, "other shapes": misshaped}
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
        raise CheckpointError(f"the checkpoint does not fit the model. {listed}")
