"""ONNX and OpenVINO, in float32 and int8, computed by their own runtimes."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from test_fold import images, randomised
from test_lite_int8 import relative_error, small

from keras_convmixer.deployment import onnx_file
from keras_convmixer.deployment.export import export
from keras_convmixer.deployment.prepare import prepared
from keras_convmixer.errors import UserError
from keras_convmixer.exported.runtimes import OPENERS

FORMATS = tuple(onnx_file.NEEDS)


def opened(model, folder, format, *arguments, **options):
    """A model written and opened, as a function from images to a dictionary."""
    for module in onnx_file.NEEDS[format]:
        pytest.importorskip(module)
    path = folder / onnx_file.FILE_NAMES[format]["none"]
    onnx_file.save(model, model.input_shape[1:3], path, format, *arguments, **options)
    return OPENERS[format](path, 2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("quantize, difference, agreement", [("none", 1e-5, 1), ("int8", 0.2, 0.98)])
def test_agrees_with_the_model(bundle, tmp_path, format, quantize, difference, agreement):
    for module in onnx_file.NEEDS[format]:
        pytest.importorskip(module)
    report = export(bundle, tmp_path, format=format, quantize=quantize, images=64, threads=1)
    assert report.path == tmp_path / onnx_file.FILE_NAMES[format][quantize]
    assert report.comparison.max_difference < difference
    assert report.comparison.agreement >= agreement
    written = json.loads((tmp_path / f"{report.path.name}.json").read_text())
    assert (written["format"], written["quantize"]) == (format, quantize)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("sizes", [{"kernel_size": 4, "depth": 1}, {"kernel_size": 9, "input_shape": (23, 20, 3)}])
def test_every_output_is_the_models(tmp_path, format, sizes):
    model = randomised(classifier_activation=None, **sizes)
    batch = images(model)
    found = opened(model, tmp_path, format, features=True)(batch)
    expected = {k: keras.ops.convert_to_numpy(v) for k, v in prepared(model, features=True)(batch).items()}
    assert sorted(found) == sorted(expected) == ["features", "logits", "probabilities"]
    for name in expected:
        assert found[name].shape == expected[name].shape
        assert relative_error(found[name], expected[name]) < 1e-5


def test_every_activation_is_the_models(tmp_path):
    onnx_graph = pytest.importorskip("keras_convmixer.deployment.onnx_graph")
    for activation in onnx_graph.ACTIVATIONS:
        model = randomised(activation=activation, depth=1, classifier_activation=None)
        batch = images(model)
        found = opened(model, tmp_path, "onnx")(batch)["logits"]
        assert relative_error(found, keras.ops.convert_to_numpy(model(batch))) < 1e-5, activation


@keras.saving.register_keras_serializable()
def halved(x):
    return x / 2


@pytest.mark.parametrize("activation, name", [("log_sigmoid", "'log_sigmoid'"), (halved, "'halved'")])
def test_an_activation_without_a_name_in_onnx_is_refused(tmp_path, activation, name):
    with pytest.raises(UserError, match=f"have no activation {name}; known: gelu, relu"):
        opened(randomised(activation=activation, classifier_activation=None), tmp_path, "onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kernel_size, activation", [(7, "relu"), (9, "gelu"), (5, "silu")])
def test_int8_is_close_to_the_model(tmp_path, format, kernel_size, activation):
    model, pixels = small(kernel_size, activation)
    pixels = pixels.astype("float32")
    run = opened(model, tmp_path, format, "int8", [image[None] for image in pixels[:32]])
    assert relative_error(run(pixels)["logits"], keras.ops.convert_to_numpy(model(pixels))) < 0.0125


def test_int8_is_computed_in_integers_by_onnx_runtime(tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    save_small_in_int8(tmp_path / "model.onnx", "onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("QLinearConv") == 6


def test_int8_is_computed_in_integers_by_openvino(tmp_path):
    openvino = pytest.importorskip("openvino")
    save_small_in_int8(tmp_path / "openvino", "openvino")
    # Left alone, it takes bfloat16 for the rest where the processor has it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "openvino" / "model.xml", "CPU", settings)
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    precisions = [layer["runtimePrecision"].get() for layer in layers if layer["layerType"].get() == "Convolution"]
    assert sorted(precisions) == ["f32"] + ["u8"] * 6


def save_small_in_int8(path, format):
    model, pixels = small(5, "gelu")
    representative = [image[None].astype("float32") for image in pixels[:4]]
    onnx_file.save(model, model.input_shape[1:3], path, format, "int8", representative)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_model_of_images_of_any_size_gets_that_of_its_preprocessing(tmp_path, quantize, bundle):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = randomised(kernel_size=3, depth=1, input_shape=(None, None, 3), num_classes=10)
    of_any_size = dataclasses.replace(bundle, model=model)
    report = export(of_any_size, tmp_path, format="onnx", quantize=quantize, features=True, compare=False)
    graph = onnx.load(report.path).graph
    shapes = {tensor.name: tensor.type.tensor_type.shape.dim for tensor in (*graph.input, *graph.output)}
    sides = {name: [side.dim_value for side in shape[1:]] for name, shape in shapes.items()}
    assert sides == {"image": [8, 8, 3], "probabilities": [10], "logits": [10], "features": [4, 4, 24]}


@pytest.mark.parametrize("format", FORMATS)
def test_int8_gives_features_too(tmp_path, format):
    model, pixels = small(5, "relu")
    pixels = pixels[:8].astype("float32")
    found = opened(model, tmp_path, format, "int8", [image[None] for image in pixels], features=True)(pixels)
    expected = keras.ops.convert_to_numpy(prepared(model, features=True)(pixels)["features"])
    assert relative_error(found["features"], expected) < 0.03


def test_int8_weights_are_bytes(tmp_path):
    pytest.importorskip("onnx")
    model = randomised(dim=128, depth=2, classifier_activation=None)
    pixels = images(model)
    sizes = {}
    for quantize in ("none", "int8"):
        path, size = tmp_path / quantize, model.input_shape[1:3]
        onnx_file.save(model, size, path, "onnx", quantize, [image[None] for image in pixels])
        sizes[quantize] = (tmp_path / quantize).stat().st_size
    assert sizes["int8"] < 0.4 * sizes["none"]


@pytest.mark.parametrize("format", FORMATS)
def test_int8_of_a_block_that_sees_only_zeros(tmp_path, format):
    model, pixels = small(7, "relu")
    kernel, bias = model.get_layer("patch_embedding").get_weights()
    model.get_layer("patch_embedding").set_weights([kernel, bias - 1e4])
    model.get_layer("patch_embedding_norm").set_weights([np.full(32, value) for value in (1, 0, 0, 1)])
    pixels = pixels[:4].astype("float32")
    found = opened(model, tmp_path, format, "int8", [image[None] for image in pixels])(pixels)["logits"]
    expected = keras.ops.convert_to_numpy(model(pixels))
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_extra_is_named(bundle, tmp_path, format, monkeypatch):
    monkeypatch.setitem(onnx_file.NEEDS, format, ("no_such_module",))
    with pytest.raises(ImportError, match=rf'pip install "keras_convmixer\[{format}\]"'):
        export(bundle, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()
