"""The forms for servers: an ONNX file, and OpenVINO's model, which is read from the same graph."""

import importlib.util

from keras_convmixer.deployment import fold

# What an export needs besides TensorFlow, and is checked with. Each is an extra of this package.
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
# format → quantization → the name of what is written
FILE_NAMES = {
    "onnx": {"none": "model.onnx", "int8": "model_int8.onnx"},
    "openvino": {"none": "openvino", "int8": "openvino_int8"},
}


def check_installed(format):
    """Raises ImportError, with the pip line, unless what a format needs is installed."""
    for name in NEEDS[format]:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'{format} needs {name}: python -m pip install "keras_convmixer[{format}]"')


def save(model, input_size, path, format, quantize="none", representative=None, *, features=False):
    """Writes an ONNX file, or a folder with OpenVINO's model.xml and model.bin. For what is in it see `onnx_graph`.

    Args:
        model: a float32 `ConvMixer` that ends in logits. input_size: (height, width) of its images.
        path: the file or folder to write.
        format: "onnx" or "openvino".
        quantize: "none" or "int8".
        representative: for int8: an iterable of float32 images `(1, height, width, 3)` as in evaluation.
        features: whether to give the last block's map too.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or its activation has no name in ONNX.
    """
    # imported here, for this module is imported where the extras are not installed
    from keras_convmixer.deployment import onnx_int8
    from keras_convmixer.deployment.onnx_graph import onnx_graph

    if quantize == "int8":
        proto = onnx_int8.convert(model, input_size, representative, runtime=format, features=features)
    else:
        proto = onnx_graph(fold.folded(model), input_size, features=features)
    if format == "onnx":
        path.write_bytes(proto.SerializeToString())
        return
    import openvino

    path.mkdir()
    read = openvino.Core().read_model(proto.SerializeToString())
    openvino.save_model(read, path / "model.xml", compress_to_fp16=False)
