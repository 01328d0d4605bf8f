"""What a TFLite file says of itself, read by the field numbers of TFLite's metadata_schema.fbs."""

import dataclasses
import struct
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.table import Table

from keras_convmixer.deployment import lite_metadata, tflite
from keras_convmixer.deployment.export import export
from keras_convmixer.exported import companions


class Read:
    """A table of a FlatBuffer. Fields are asked for by number."""

    def __init__(self, content, position):
        self.table = Table(content, position)

    def _at(self, field):
        offset = self.table.Offset(4 + 2 * field)
        assert offset, f"no field {field}"
        return self.table.Pos + offset

    def text(self, field):
        return self.table.String(self._at(field)).decode()

    def number(self, field, kind="<B"):
        return struct.unpack_from(kind, self.table.Bytes, self._at(field))[0]

    def floats(self, field):
        vector = self.table.Indirect(self._at(field))
        (count,) = struct.unpack_from("<I", self.table.Bytes, vector)
        return list(struct.unpack_from(f"<{count}f", self.table.Bytes, vector + 4))

    def one(self, field):
        return Read(self.table.Bytes, self.table.Indirect(self._at(field)))

    def all(self, field):
        vector = self.table.Indirect(self._at(field))
        (count,) = struct.unpack_from("<I", self.table.Bytes, vector)
        places = (vector + 4 * (i + 1) for i in range(count))
        return [Read(self.table.Bytes, self.table.Indirect(place)) for place in places]


def metadata(content):
    model = schema.Model.GetRootAs(content, 0)
    (buffer,) = (
        model.Metadata(i).Buffer()
        for i in range(model.MetadataLength())
        if model.Metadata(i).Name() == b"TFLITE_METADATA"
    )
    found = model.Buffers(buffer).DataAsNumpy().tobytes()
    assert found[4:8] == b"M001"
    return Read(found, struct.unpack_from("<I", found)[0])


@pytest.fixture(scope="module")
def reports(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported")
    words = {"images": 20, "threads": 1, "author": "Ada", "license": "MIT"}
    # "№" is three bytes: texts are UTF-8.
    named = dataclasses.replace(bundle, classes=tuple(f"Ziffer №{i}" for i in range(10)))
    return {
        "float32": export(named, out, format="tflite", **words),
        "int8": export(named, out, format="tflite", quantize="int8", logits=True, features=True, **words),
    }


def test_the_model_names_itself_its_maker_and_how_it_compares(reports, bundle):
    for form in ("float32", "int8"):
        report = reports[form]
        found = metadata(report.path.read_bytes())
        assert (found.text(0), found.text(4), found.text(5)) == (bundle.path.name, "Ada", "MIT")
        assert f"A ConvMixer in {form} that tells 10 classes apart: 2 blocks of 32 channels" in found.text(1)
        assert "On 20 images its first class is that of the Keras model it was made from on " in found.text(1)
        assert f"a probability differs by {report.comparison.max_difference:.1e} at most" in found.text(1)
        assert found.text(7) == "1.0.0"


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_the_input_is_rgb_that_is_not_to_be_normalised(reports, form):
    (graph,) = metadata(reports[form].path.read_bytes()).all(3)
    (image,) = graph.all(2)
    content = image.one(3)
    assert content.number(0) == 2  # ImageProperties
    assert content.one(1).number(0) == 1  # RGB
    size = content.one(1).one(1)
    assert (size.number(0, "<I"), size.number(1, "<I")) == (8, 8)
    (unit,) = image.all(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert (unit.one(1).floats(0), unit.one(1).floats(1)) == ([0.0], [1.0])
    assert (image.one(5).floats(0), image.one(5).floats(1)) == ([255.0], [0.0])


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_outputs_are_named_in_their_order_and_labelled(reports, form):
    path = reports[form].path
    (graph,) = metadata(path.read_bytes()).all(3)
    names = [output.text(0) for output in graph.all(3)]
    assert names == ["probabilities", *(["features", "logits"] if form == "int8" else [])]
    interpreter = Interpreter(str(path))
    shapes = [tuple(output["shape"]) for output in interpreter.get_output_details()]
    assert shapes == [(1, 10), *([(1, 4, 4, 32), (1, 10)] if form == "int8" else [])]
    (file,) = graph.all(3)[0].all(6)
    assert (file.text(0), file.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == [f"Ziffer №{i}" for i in range(10)]
        assert archive.read("input.json") == (path.parent / "input.json").read_bytes()


def test_the_first_output_is_the_probabilities(reports, held_out, expected):
    interpreter = Interpreter(str(reports["int8"].path))
    interpreter.allocate_tensors()
    (image,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], held_out[:1].astype("uint8"))
    interpreter.invoke()
    probabilities, features, logits = (interpreter.get_tensor(output["index"]) for output in outputs)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(probabilities - expected[:1]).max() < 0.2
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), probabilities, atol=1e-5)


def test_int8_takes_float32_images_where_asked(bundle, held_out):
    representative = [image[None] for image in held_out[:8]]
    found = []
    for dtype in ("uint8", "float32"):
        content = tflite.convert(bundle.model, (8, 8), "int8", representative, input_type=dtype)
        runner = Interpreter(model_content=content).get_signature_runner("serving_default")
        assert runner.get_input_details()["images"]["dtype"] == np.dtype(dtype)
        found.append(runner(images=held_out[:1].astype(dtype))["probabilities"])
    np.testing.assert_allclose(*found, atol=1e-6)


def aligned(content):
    """Where the buffers of a file lie, modulo 16."""
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return [buffer._tab.Vector(buffer._tab.Offset(4)) % 16 for buffer in buffers if buffer.DataLength()]


def test_metadata_leaves_weights_as_they_lie(bundle):
    content = tflite.convert(bundle.model, (8, 8))
    for name in ("m", 5 * "m", 9 * "m", 13 * "m"):
        card = lite_metadata.Card(name, "d", "a", "l")
        found = lite_metadata.described(content, card, companions.texts(bundle))
        assert aligned(found)[:-1] == aligned(content)
        assert content in found
        assert lite_metadata.described(content, card, companions.texts(bundle)) == found


def test_labels_must_be_one_for_each_output(bundle):
    content = tflite.convert(bundle.model, (8, 8))
    beside = companions.texts(bundle) | {companions.LABELS: "cat\ndog\n"}
    with pytest.raises(ValueError, match="the model has 10 outputs, and there are 2 labels: give one for each"):
        lite_metadata.described(content, lite_metadata.Card("m", "d", "a", "l"), beside)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classes": list("012345678\n")}, r"'\\n' cannot name a class: expected one line of visible characters"),
        ({"classes": ["a\nb", *"123456789"]}, r"'a\\nb' cannot name a class: expected one line"),
        ({"classes": list("01234")}, "the model has 10 outputs, and there are 5 class names"),
        ({"quantize": "dynamic", "input_type": "uint8"}, "input_type 'uint8' is not for tflite with .*float32$"),
        ({"quantize": "int8", "input_type": "int8"}, "which takes uint8 or float32"),
        ({"format": "saved_model", "license": "MIT"}, 'are for format "tflite"'),
    ],
)
def test_bad_input_is_one_line(bundle, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        export(bundle, tmp_path / "out", **{"format": "tflite"} | arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_classes_is_refused(bundle, tmp_path):
    with pytest.raises(ValueError, match=r"does not say what its 10 outputs are: give classes=\[...\]"):
        export(bundle.model, tmp_path / "out", format="tflite", data="digits")
