"""ONNX and OpenVINO, where their extras are installed."""

import json

import pytest

from keras_convmixer.deployment import keras_export
from keras_convmixer.deployment.export import export


@pytest.mark.parametrize("format, name", [("onnx", "model.onnx"), ("openvino", "openvino")])
def test_agrees_with_the_model(bundle, tmp_path, format, name):
    for module in keras_export.NEEDS[format]:
        pytest.importorskip(module)
    report = export(bundle, tmp_path, format=format, images=32, threads=1)
    assert report.path == tmp_path / name
    assert report.comparison.max_difference < 1e-5
    assert json.loads((tmp_path / f"{report.path.name}.json").read_text())["format"] == format


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_missing_extra_is_named(bundle, tmp_path, format, monkeypatch):
    monkeypatch.setitem(keras_export.NEEDS, format, ("no_such_module",))
    with pytest.raises(ImportError, match=rf'pip install "keras_convmixer\[{format}\]"'):
        export(bundle, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()
