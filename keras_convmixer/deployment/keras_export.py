"""The forms that Keras itself writes for other runtimes: ONNX and OpenVINO. Each needs an extra of this package."""

import importlib.util
import math

import keras
import numpy as np

# What an export needs besides TensorFlow, and is checked with.
NEEDS = {"onnx": ("tf2onnx", "onnxruntime"), "openvino": ("openvino",)}


def check_installed(format):
    """Raises ImportError, with the pip line, unless what a format needs is installed."""
    for name in NEEDS[format]:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'{format} needs {name}: python -m pip install "keras_convmixer[{format}]"')


def save(model, path, format):
    """Writes an ONNX file, or a folder with OpenVINO's model.xml and model.bin.

    Its input `image` is float32 `(batch, height, width, 3)`, RGB in 0–255; its outputs have the names of the
    model's.

    Args:
        model: a `keras.Model` that gives a dictionary, see `prepare.prepared`.
        path: the file or folder to write.
        format: "onnx" or "openvino".
    """
    if format == "openvino":
        path.mkdir()
        path /= "model.xml"
    model = _with_erf(model)
    model(np.zeros((1, *model.input_shape[1:]), "float32"))  # Keras exports a model only once it was called.
    model.export(str(path), format=format, verbose=False)


def _with_erf(model):
    """The model with its exact GELU by erf: Keras computes it by erfc, which tf2onnx does not know."""

    def clone(layer):
        config = layer.get_config()
        if getattr(layer, "activation", None) is keras.activations.gelu:
            config["activation"] = _gelu
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _gelu(x):
    return 0.5 * x * (1 + keras.ops.erf(x * (1 / math.sqrt(2))))
