import dataclasses
import io
import json
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from keras_convmixer.bundles import Bundle
from keras_convmixer.data import decode
from keras_convmixer.deployment.comparison import Comparison, Disagreement, Tolerance
from keras_convmixer.deployment.converter import check_operators
from keras_convmixer.deployment.export import Exported, export
from keras_convmixer.errors import UserError
from keras_convmixer.model import ConvMixer

FORMS = {
    "none": ("model.tflite", np.float32),
    "float16": ("model_float16.tflite", np.float32),
    "dynamic": ("model_dynamic.tflite", np.float32),
    "int8": ("model_int8.tflite", np.uint8),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def tflite_report(form, bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp(form)
    return export(bundle, out, format="tflite", quantize=form, images=64, threads=1)


@pytest.fixture(scope="module")
def saved_model_report(bundle, tmp_path_factory):
    return export(bundle.path, tmp_path_factory.mktemp("out"), images=64, features=True)


def test_tflite_file_stands_beside_labels_input_and_report(form, tflite_report):
    path = tflite_report.path
    assert path.name == FORMS[form][0]
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        f"{path.name}.json",
        "labels.txt",
        "input.json",
    }
    assert (path.parent / "labels.txt").read_text().split() == list("0123456789")
    caller = json.loads((path.parent / "input.json").read_text())
    assert caller["how"].startswith("Resize the image (bicubic, antialiased)")
    del caller["how"]
    assert caller == {
        "width": 8,
        "height": 8,
        "crop": 1.0,
        "interpolation": "bicubic",
        "color_space": "RGB",
        "range": [0, 255],
        "mean": 0,  # the model normalises, whatever its own mean and std
        "std": 1,
    }
    summary = json.loads((path.parent / f"{path.name}.json").read_text())
    assert summary["size"] == path.stat().st_size
    assert summary["comparison"]["images"] == 64


def test_tflite_signature(form, tflite_report):
    runner = Interpreter(str(tflite_report.path)).get_signature_runner("serving_default")
    (name, taken), *others = runner.get_input_details().items()
    assert (name, taken["dtype"], list(taken["shape"]), others) == ("images", FORMS[form][1], [1, 8, 8, 3], [])
    given = {k: (v["dtype"], list(v["shape"])) for k, v in runner.get_output_details().items()}
    assert given == {"probabilities": (np.float32, [1, 10])}


def test_tflite_file_computes_what_keras_does(form, tflite_report, held_out, expected):
    runner = Interpreter(str(tflite_report.path)).get_signature_runner("serving_default")
    results = [runner(images=image[None].astype(FORMS[form][1])) for image in held_out]
    got = np.concatenate([result["probabilities"] for result in results])
    assert np.abs(got - expected).max() < {"none": 1e-5, "float16": 2e-2, "dynamic": 0.2, "int8": 1}[form]
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.95


def test_number_types_inside(form, tflite_report):
    tensors = [t for t in Interpreter(str(tflite_report.path)).get_tensor_details() if len(t["shape"]) == 4]
    types = {np.dtype(tensor["dtype"]).name for tensor in tensors}
    float16, dynamic = {"float16", "float32"}, {"int8", "float32"}
    int8 = {"int8", "uint8", "float32"}  # the image is uint8, the patch embedding float32
    assert types == {"none": {"float32"}, "float16": float16, "dynamic": dynamic, "int8": int8}[form]
    of_blocks = {np.dtype(tensor["dtype"]).name for tensor in tensors if tensor["name"].startswith("block_")}
    assert of_blocks == {"int8"} or form != "int8"
    # int8: each filter of the blocks' 4 convolutions has a scale of its own
    per_channel = sum(len(tensor["quantization_parameters"]["scales"]) > 1 for tensor in tensors)
    assert per_channel >= 4 or form != "int8"


def test_saved_model_serves_in_plain_tensorflow(saved_model_report, tmp_path, digits, held_out, expected):
    contents = [digits.held_out().encoded(tf.constant(i, tf.int64)).numpy() for i in range(4)]
    np.savez(tmp_path / "in.npz", images=held_out[:4])
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)
    script = """
import sys
import warnings
from unittest import mock
sys.modules["keras_convmixer"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
model, folder = tf.saved_model.load(sys.argv[1]), sys.argv[2]
serve = model.signatures
images = serve["serving_default"](images=tf.constant(np.load(folder + "/in.npz")["images"]))
files = tf.stack([tf.io.read_file(f"{folder}/{i}.png") for i in range(4)])
of_files = serve["serve_bytes"](image_bytes=files)
np.savez(folder + "/out.npz", **{f"{k}_of_images": v for k, v in images.items()},
         **{f"{k}_of_files": v for k, v in of_files.items()})
"""
    command = [sys.executable, "-c", script, str(saved_model_report.path), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    got = np.load(tmp_path / "out.npz")
    for source in ("images", "files"):
        np.testing.assert_allclose(got[f"probabilities_of_{source}"], expected[:4], atol=1e-5)
        np.testing.assert_allclose(tf.nn.softmax(got[f"logits_of_{source}"]), expected[:4], atol=1e-5)
        assert got[f"features_of_{source}"].shape == (4, 4, 4, 32)


def test_saved_model_takes_files_of_any_size(saved_model_report, bundle):
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (37, 53, 3)), tf.uint8)
    smooth = tf.cast(tf.image.resize(pixels, (90, 61)), tf.uint8)
    contents = [
        tf.io.encode_jpeg(smooth, quality=90),
        tf.io.encode_jpeg(smooth[..., :1], progressive=True),
        tf.io.encode_png(pixels),
        tf.io.encode_png(tf.concat([pixels, pixels[..., :1]], axis=-1)),
        tf.io.encode_png(tf.cast(pixels[..., :1], tf.uint16) * 256),
    ]
    signatures = tf.saved_model.load(saved_model_report.path).signatures
    of_files = signatures["serve_bytes"](image_bytes=tf.stack(contents))
    images = tf.stack([decode.evaluation_image(content, bundle.preprocessing) for content in contents])
    of_images = signatures["serving_default"](images=images)
    for name in ("probabilities", "logits", "features"):
        np.testing.assert_allclose(of_files[name], of_images[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_saved_model_says_which_files_it_reads(saved_model_report, kind):
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, kind)
    serve = tf.saved_model.load(saved_model_report.path).signatures["serve_bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="neither a JPEG nor a PNG image"):
        serve(image_bytes=tf.constant([file.getvalue()]))


def test_saved_model_folder(saved_model_report):
    path = saved_model_report.path
    assert {file.name for file in path.parent.iterdir()} == {
        "saved_model",
        "saved_model.json",
        "labels.txt",
        "input.json",
    }
    assert saved_model_report.comparison.max_difference < 1e-5
    assert "saved_model" in saved_model_report.as_table()
    assert "100.00%" in saved_model_report.as_table()


def test_each_export_into_a_folder_keeps_its_report(bundle, tmp_path):
    for format in ("tflite", "saved_model"):
        export(bundle, tmp_path, format=format, images=20)
    measured = Comparison(20, 0, 1, 1, 1), Tolerance(1, 1)
    Exported(tmp_path / "model.onnx", "onnx", "none", 1, 1, *measured).save(tmp_path)
    reports = {path.name: json.loads(path.read_text())["format"] for path in tmp_path.glob("*model*.json")}
    assert reports == {
        "model.tflite.json": "tflite",
        "saved_model.json": "saved_model",
        "model.onnx.json": "onnx",
    }


ONNX = pytest.param("onnx", marks=pytest.mark.skipif(not find_spec("onnxruntime"), reason="needs ONNX Runtime"))


@pytest.mark.parametrize("format", ["tflite", ONNX])
def test_a_folder_that_holds_the_export_of_another_model_is_refused(bundle, tmp_path, format):
    others = dataclasses.replace(bundle, classes=tuple("abcdefghij"))
    narrower = dataclasses.replace(bundle, preprocessing=dataclasses.replace(bundle.preprocessing, crop=0.9))
    name = export(others, tmp_path, format=format, compare=False).path.name
    # Replaced by another model's while it is alone.
    export(bundle, tmp_path, format=format, compare=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for model in (others, narrower):
        with pytest.raises(UserError, match=f"holds the export of another model, {name}: give another --out"):
            export(model, tmp_path, format="saved_model", compare=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not (tmp_path / "saved_model").exists()


def test_what_says_nothing_of_itself_is_no_export(bundle, tmp_path):
    (tmp_path / "foreign.onnx").write_bytes(b"")
    for _ in range(2):
        export(bundle, tmp_path, format="tflite", compare=False)


def test_what_was_compared_with_what_is_said(bundle, tmp_path):
    with pytest.warns(UserWarning, match="model_int8.tflite was compared on 4 images alone: too few to tell"):
        report = export(bundle, tmp_path, format="tflite", quantize="int8", images=4)
    table = report.as_table()
    assert "compared on      4 images: too few to tell, 20 or more would do" in table
    assert "of a probability from Keras's (allowed: any)" in table
    assert json.loads(report.as_json())["tolerance"]["max_difference"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = export(bundle, tmp_path, format="tflite", images=20, threads=1)
    assert "compared on      20 images\n" in report.as_table()
    assert "(allowed: 1e-04)" in report.as_table()


def test_a_mixed_precision_model_is_exported_in_float32(bundle, tmp_path):
    mixed = keras.models.clone_model(
        bundle.model,
        clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"}),
    )
    mixed.set_weights(bundle.model.get_weights())
    report = export(dataclasses.replace(bundle, model=mixed), tmp_path, format="tflite", images=8)
    runner = Interpreter(str(report.path)).get_signature_runner("serving_default")
    assert runner.get_output_details()["probabilities"]["dtype"] == np.float32
    assert report.comparison.max_difference < 1e-5


def test_beyond_tolerance_nothing_is_left_and_the_old_file_stays(bundle, tmp_path):
    (tmp_path / "model_dynamic.tflite").write_bytes(b"old")
    with pytest.raises(Disagreement, match=r"model_dynamic.tflite was not kept.*at most 0 is allowed"):
        export(
            bundle,
            tmp_path,
            format="tflite",
            quantize="dynamic",
            images=8,
            tolerance=Tolerance(0.0, 0.0),
            threads=1,
        )
    assert [file.name for file in tmp_path.iterdir()] == ["model_dynamic.tflite"]
    assert (tmp_path / "model_dynamic.tflite").read_bytes() == b"old"


@pytest.mark.parametrize(
    "difference, agreement, kept",
    [(0.01, 0.99, True), (0.02, 1.0, False), (0.0, 0.98, False), (float("nan"), 1.0, False)],
)
def test_tolerance(difference, agreement, kept):
    comparison = Comparison(100, difference, agreement, 1.0, 1.0)
    if kept:
        comparison.check(Tolerance(0.01, 0.99), "model")
    elif np.isnan(difference):
        with pytest.raises(Disagreement, match="model was not kept"):
            comparison.check(Tolerance(None, 0.99), "model")
    else:
        with pytest.raises(Disagreement, match="model was not kept"):
            comparison.check(Tolerance(0.01, 0.99), "model")


@keras.saving.register_keras_serializable()
def digamma(x):
    return tf.math.digamma(x)


def test_operations_that_are_not_built_in_are_refused(bundle, tmp_path):
    model = ConvMixer(
        8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=10, classifier_activation=None, activation=digamma
    )
    with pytest.raises(UserError, match="TFLite does not have built in: Digamma"):
        export(dataclasses.replace(bundle, model=model), tmp_path, format="tflite", images=8)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_flex_operations_is_recognised():
    function = tf.function(tf.linalg.cholesky, input_signature=[tf.TensorSpec((2, 2), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    with pytest.raises(ValueError, match="FlexCholesky"):
        check_operators(converter.convert())


def test_a_process_keeps_its_stderr(bundle, tmp_path):
    """The package is a guest: it moves none of the process's file descriptors."""
    with mock.patch("os.dup2", wraps=os.dup2) as moved:
        export(bundle, tmp_path, format="tflite", images=20, threads=1)
    moved.assert_not_called()


def test_data_can_be_named(bundle, tmp_path):
    report = export(dataclasses.replace(bundle, path=None), tmp_path, format="tflite", data="digits", images=8)
    assert report.comparison.images == 8


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"format": "coreml"}, "unknown format 'coreml'; known: saved_model, tflite, onnx, openvino"),
        ({"format": "tflite", "quantize": "int4"}, "unknown quantize 'int4'; known: none, float16, dynamic, int8"),
        ({"quantize": "int8"}, "quantize 'int8' is not for saved_model, which takes none$"),
        ({"format": "onnx", "quantize": "dynamic"}, "'dynamic' is not for onnx, which takes none or int8"),
        ({"format": "onnx", "quantize": "int8", "input_type": "uint8"}, "'int8', which takes float32"),
        ({"format": "onnx", "split": False}, 'for format "tflite": onnx has whole kernels'),
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"threads": 0, "format": "tflite"}, "threads must be at least 1, got 0"),
    ],
)
def test_bad_arguments(bundle, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(bundle, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["saved_model", "onnx"])
def test_a_model_whose_channels_come_first_is_refused(bundle, tmp_path, format):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(UserError, match='takes a model whose images are "channels_last"'):
            export(bundle, tmp_path / "out", format=format, compare=False)
    finally:
        keras.config.set_image_data_format(before)
    assert not (tmp_path / "out").exists()


def test_a_model_without_data(bundle, tmp_path):
    with pytest.raises(ValueError, match="give --data"):
        export(Bundle(bundle.model, bundle.preprocessing, bundle.classes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
