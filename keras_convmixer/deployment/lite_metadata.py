"""What a TFLite file says of itself, by which MediaPipe and other stock applications take it as it is.

The tables are those of TFLite's metadata_schema.fbs, version 1.5.0 (google-ai-edge/mediapipe, mediapipe/tasks/
metadata), with their fields in its order. They lie in a buffer of the model that its own metadata names
TFLITE_METADATA; the files that they speak of are a ZIP archive behind the model.
"""

import io
import zipfile
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_convmixer.deployment import flatbuffer
from keras_convmixer.errors import UserError
from keras_convmixer.exported import companions

# Of what is used here, all is in the schema's first version.
MIN_PARSER_VERSION = "1.0.0"
DESCRIPTIONS, TENSOR_AXIS_LABELS = np.int8(1), np.int8(2)
RGB = np.int8(1)
# types in the unions ContentProperties and ProcessUnitOptions
FEATURE_PROPERTIES, IMAGE_PROPERTIES = np.uint8(1), np.uint8(2)
NORMALIZATION_OPTIONS = np.uint8(1)

OUTPUTS = {
    "probabilities": "The probability of each class.",
    "logits": "The probabilities before the softmax.",
    "features": "The last block's map, from which class activation maps are made.",
}


class Card(NamedTuple):
    """What people want to know of a model."""

    name: str
    description: str
    author: str
    license: str


def described(content, card, beside):
    """A TFLite file's content with its metadata.

    Args:
        content: what `tflite.convert` gives.
        card: the model's `Card`.
        beside: what `companions.texts` gives.

    Returns:
        bytes: the model, then the files that `beside` has, as a ZIP archive.

    Raises:
        ValueError: there is not one label for each output.
    """
    model = schema.Model.GetRootAs(content, 0)
    metadata = flatbuffer.buffer(_metadata(model, card, beside), b"M001")
    root = flatbuffer.fields(model)
    buffers = flatbuffer.members(content, root[4])
    others = flatbuffer.members(content, root[6]) if root[6] else []
    parts = [None if part is None else flatbuffer.followed(content, part) for part in root]
    parts[0] = np.uint32(model.Version())
    parts[4] = [*buffers, (metadata,)]
    parts[6] = [*others, ("TFLITE_METADATA", np.uint32(len(buffers)))]
    return _with_files(flatbuffer.buffer(tuple(parts), b"TFL3", content), beside)


def _metadata(model, card, beside):
    """The table ModelMetadata."""
    graph = model.Subgraphs(0)
    signature = model.SignatureDefs(0)
    names = {
        signature.Outputs(i).TensorIndex(): signature.Outputs(i).Name().decode()
        for i in range(signature.OutputsLength())
    }
    outputs = [_output(names[index], graph.Tensors(index), beside) for index in graph.OutputsAsNumpy()]
    subgraph = (card.name, None, [_image(graph.Tensors(graph.Inputs(0)))], outputs)
    how = (companions.INPUT, "How an image file becomes the input.", DESCRIPTIONS)
    return (card.name, card.description, None, [subgraph], card.author, card.license, [how], MIN_PARSER_VERSION)


def _image(tensor):
    """The table TensorMetadata of the input."""
    height, width = (np.uint32(side) for side in tensor.ShapeAsNumpy()[1:3])
    content = (IMAGE_PROPERTIES, (RGB, (width, height)))
    nothing = (NORMALIZATION_OPTIONS, (np.zeros(1, "float32"), np.ones(1, "float32")))
    stats = (np.full(1, 255, "float32"), np.zeros(1, "float32"))
    description = "An RGB image, 0 to 255. The model normalises it itself."
    return ("image", description, None, content, [nothing], stats)


def _output(name, tensor, beside):
    """The table TensorMetadata of an output."""
    content = (FEATURE_PROPERTIES, ())
    if name == "features":
        return (name, OUTPUTS[name], None, content)
    count, labels = tensor.ShapeAsNumpy()[-1], beside[companions.LABELS].splitlines()
    if count != len(labels):
        raise UserError(f"the model has {count} outputs, and there are {len(labels)} labels: give one for each")
    least, most = (0, 1) if name == "probabilities" else (None, None)
    stats = None if least is None else (np.full(1, most, "float32"), np.full(1, least, "float32"))
    files = [(companions.LABELS, "A class a line, in the order of the output.", TENSOR_AXIS_LABELS)]
    return (name, OUTPUTS[name], None, content, None, stats, files)


def _with_files(content, texts):
    """The content with a ZIP archive of texts behind it, which counts its places from the content's beginning."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # whose date is the same at any time
    return file.getvalue()
