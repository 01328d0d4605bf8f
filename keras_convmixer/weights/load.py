"""A file or address of weights, of any kind that is known, into a model."""

import contextlib
import functools
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import safetensors

from keras_convmixer import files
from keras_convmixer.errors import first_line
from keras_convmixer.parts import architecture, parts
from keras_convmixer.weights import state_dict
from keras_convmixer.weights.download import download
from keras_convmixer.weights.keras_file import building_at_most, count_numbers, open_layers
from keras_convmixer.weights.stored_array import CheckpointError, StoredArray
from keras_convmixer.weights.torch_file import open_torch

SAFETENSORS_DTYPES = {
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("float32"),
    "F64": np.dtype("float64"),
    "I64": np.dtype("int64"),
}


def load_weights(model, source, *, ema=False, may_resample=(), new_head=False):
    """Loads weights into a ConvMixer, strictly; see `state_dict.load_state` for what is adapted.

    Args:
        model: a `ConvMixer`.
        source: a path, or an https:// address (see `download.download`), of a PyTorch checkpoint (.pth, .pth.tar),
            a .safetensors file in either layout of names, or a .keras or .weights.h5 file of a ConvMixer; or a
            model folder. Of a .keras file, which states its activation and normalisation, those of the model may
            be others, as a fine-tuning may want them; a warning names both.
        ema: whether to take a PyTorch checkpoint's averaged weights.
        may_resample: of "patch_size" and "kernel_size", those in which the weights may differ from the model.
        new_head: whether to start the head anew although it has as many classes, since they are others.

    Raises:
        CheckpointError (a ValueError): the file is not what it should be or does not fit the model, or weights in
            it are not finite. The model is then unchanged.
        OSError: there is no such file, or it cannot be downloaded.
    """
    path = fetch(source)
    try:
        with open_state(path, ema=ema) as (state, stated):
            state_dict.load_state(model, state, may_resample=may_resample, new_head=new_head)
    except CheckpointError as error:
        known = any(str(name) in str(error) for name in (path, source))
        raise CheckpointError(str(error) if known else f"{source}: {error}") from error
    _warn_of_another(model, stated, source)


def load_model(path):
    """The model in a .keras file, without running code that is in it.

    Raises:
        CheckpointError: the file is not what it should be, or weights in it are not finite. OSError: there is none.
    """
    path = Path(path)
    with building_at_most(count_numbers(path)):
        model = _keras(keras.saving.load_model, path, compile=False, safe_mode=True)
    try:
        for weight in model.weights:
            state_dict.check_finite(keras.ops.convert_to_numpy(weight), weight)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return model


def fetch(source):
    """The local path of the file that a path, address or model folder stands for. Raises OSError without one."""
    if str(source).startswith(("https://", "http://")):
        return download(str(source), check=check)
    path = files.expanded(source)
    if path.is_dir():
        path /= "model.keras"
    if not path.is_file():
        raise FileNotFoundError(
            f"{source}: no such file of weights. Published ones are the weights "
            '"imagenet" of a model such as convmixer_768_32'
        )
    return path


@contextlib.contextmanager
def open_state(path, *, ema=False):
    """What a file of weights holds, as a context in which its arrays can be read.

    Args:
        path: a .safetensors, PyTorch, .keras or .weights.h5 file. ema: whether to take the averaged weights.

    Yields:
        The state dict, names to `StoredArray`s or numpy arrays; and the arguments of `ConvMixer` that the file
        states besides: of a .keras file those that its weights do not show, of others none.

    Raises:
        CheckpointError: the file is not what it should be. OSError: it cannot be opened.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(9)
    # The length of a JSON header, then the header: no PyTorch file has a brace there.
    is_safetensors = start[8:] == b"{"
    if ema and (is_safetensors or path.suffix in (".keras", ".h5")):
        raise CheckpointError(f"{path} holds one set of weights, none averaged: read it without ema")
    if path.suffix == ".keras":
        model = load_model(path)
        yield state_dict.state_dict(model), _stated(model)
    elif path.suffix == ".h5":
        with open_layers(path) as layers:
            yield state_dict.of_layers(layers), {}
    else:
        with _open_safetensors(path) if is_safetensors else open_torch(path, ema=ema) as state:
            yield _without_wrappers(state), {}


def check(path):
    """Raises CheckpointError unless `path` is a whole file of weights of a known kind, by its name and content."""
    if path.suffix == ".h5":
        _keras(h5py.File, path, "r").close()
    elif path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path.name} is not a .keras file, or is truncated")
    else:
        with open_state(path) as (state, _):
            for array in state.values():
                np.asarray(array)


@contextlib.contextmanager
def _open_safetensors(path):
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    with file:
        state = {}
        for name in list(file.keys()):
            entry = file.get_slice(name)
            if entry.get_dtype() not in SAFETENSORS_DTYPES:
                raise CheckpointError(
                    f"{path}: {name} is of type {entry.get_dtype()}, which no ConvMixer's weights are"
                )
            dtype = SAFETENSORS_DTYPES[entry.get_dtype()]
            state[name] = StoredArray(tuple(entry.get_shape()), dtype, functools.partial(_tensor, path, name))
    yield state


def _tensor(path, name):
    # Opened anew for each: of a file that stays mapped, all that was ever read stays in memory.
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def _without_wrappers(state):
    """Names without what DistributedDataParallel and torch.compile put before them."""
    for wrapper in ("module.", "_orig_mod.") * 2:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): array for name, array in state.items()}
    return state


def _keras(read, path, *arguments, **options):
    try:
        return read(path, *arguments, **options)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # Keras and h5py raise whatever their parts raise on a damaged or foreign file.
        raise CheckpointError(f"{path} cannot be loaded: {first_line(error)}") from error


def _stated(model):
    """The arguments of `ConvMixer` that a model shows and its weights do not."""
    own, sizes = parts(model), ("dim", "depth", "kernel_size", "patch_size", "include_top")
    shown = {name: value for name, value in architecture(model).items() if name not in sizes}
    last_drop = own.blocks[-1].drop
    shown |= {
        "input_shape": tuple(model.inputs[0].shape[1:]),
        "dropout": own.dropout.rate if own.dropout else 0.0,
        "stochastic_depth": last_drop.rate if last_drop else 0.0,
    }
    if own.head:
        return shown | {"classifier_activation": keras.activations.serialize(own.head.activation)}
    poolings = {keras.layers.GlobalAveragePooling2D: "avg", keras.layers.GlobalMaxPooling2D: "max"}
    return shown | {"pooling": poolings.get(type(own.pool))}


def _warn_of_another(model, stated, source):
    """Warns where weights have come from a model with another activation or normalisation than a file states."""
    own = architecture(model)
    differing = [
        name
        for name in ("activation", "mean", "std")
        if name in own and name in stated and _differ(own[name], stated[name])
    ]
    if differing:
        theirs, ours = (", ".join(f"{name} {_shown(of[name])}" for name in differing) for of in (stated, own))
        warnings.warn(
            f"the weights of {source} are of a model with {theirs}; they go into one with {ours}", stacklevel=3
        )


def _differ(ours, theirs):
    if not isinstance(ours, list):
        return ours != theirs
    # Weights for another number of channels are adapted, and can have no such normalisation.
    return len(ours) == len(theirs) and not np.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def _shown(value):
    return "[" + ", ".join(f"{v:z.4g}" for v in value) + "]" if isinstance(value, list) else value
