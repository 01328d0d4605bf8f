import csv
import errno
import io
import json
import os
import time

import numpy as np
import pytest

from keras_convmixer import bundles
from keras_convmixer.benchmark import measure, workers
from keras_convmixer.benchmark.forms import OURS, STOCK
from keras_convmixer.benchmark.measure import benchmark
from keras_convmixer.benchmark.report import Benchmark, Row
from keras_convmixer.cli import main
from keras_convmixer.deployment import onnx_file
from keras_convmixer.progress import Progress


def assert_every_form_is_measured(rows, table, folder):
    assert "fastest here, one image at a time: " in table
    for form in OURS:
        row = rows[form]
        assert row["error"] == ""
        assert float(row["images_per_second_batch_1"]) > 0 < float(row["images_per_second_batch_8"])
        assert float(row["agreement"]) >= (0.9 if form == "tflite_int8" else 0.98)
        assert int(row["size"]) > 0 < int(row["peak_memory"])
        assert form in table
    assert json.loads((folder / "benchmark.json").read_text())["machine"]["threads"] >= 1
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_a_form_that_fails_does_not_stop_the_others():
    row = Row("m", "keras", {1: 2.0, 8: 3.0}, {1: 0.1, 8: 0.1}, 10, 20, 1.0, 0.0)
    failed = Row("m", "timm", {}, {}, error="not installed: timm")
    result = Benchmark((row, failed), {"threads": 2})
    assert result.fastest("m") == row
    assert any(line.split() == ["timm", "not", "installed:", "timm"] for line in result.as_table().splitlines())
    assert list(csv.DictReader(io.StringIO(result.as_csv())))[1]["error"] == "not installed: timm"


def test_models_of_one_name_are_told_apart(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_measured", lambda name, *_: [Row(name, "keras", {}, {}, error="not measured")])
    for run in "ab":
        bundles.save(bundle, tmp_path / run / "best")
    folders = [str(tmp_path / run / "best") for run in "ab"]
    names = [row.model for row in benchmark([*folders, bundle.model, bundle.model], classes=bundle.classes).rows]
    assert names == [*folders, f"{bundle.model.name} (3)", f"{bundle.model.name} (4)"]


@pytest.mark.parametrize("arguments", [{"rounds": 0}, {"images": 0}, {"seconds": 0}, {"threads": 0}])
def test_bad_numbers(bundle, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        benchmark(bundle, **arguments)


ONNXRUNTIME = """
import time
from types import SimpleNamespace

import numpy as np

SessionOptions = SimpleNamespace


class InferenceSession:
    def __init__(self, *_, **__):
        pass

    def get_outputs(self):
        return [SimpleNamespace(name="logits")]

    def run(self, names, inputs):
        time.sleep(0.4)
        return [np.zeros((len(inputs["image"]), 10))]
"""


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_where_nothing_can_be_written_is_refused_before_all_else(place, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["benchmark", "no/such/model", "--out", str(tmp_path / place)]) == 1
    out, err = capsys.readouterr()
    assert f"{tmp_path / place} cannot be a folder: {tmp_path / 'file'} is none" in err
    assert (out, err.count("\n")) == ("", 1)


def test_what_was_measured_is_shown_although_it_cannot_be_saved(tmp_path, monkeypatch, capsys):
    def save(result, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    row = Row("m", "keras", {1: 2.0, 8: 3.0}, {1: 0.1, 8: 0.1}, 10, 20, 1.0, 0.0)
    monkeypatch.setattr(measure, "benchmark", lambda *_, **__: Benchmark((row,), {"threads": 2}))
    monkeypatch.setattr(Benchmark, "save", save)
    assert main(["benchmark", "m", "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert "fastest here, one image at a time: keras, 2.0 images/s" in out
    assert err == "convmixer: No space left on device\n"


def test_a_form_that_never_loads_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("import time\n\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(workers, "PATIENCE", 1)
    images = np.zeros((8, 224, 224, 3), "float32")  # more than a pipe holds
    began = time.perf_counter()
    with workers.Workers("m", ["onnx"], tmp_path, 1, 60) as forms:
        assert forms.logits(images) == {"onnx": None}
        assert forms.errors == {"onnx": "not available: TimeoutError: no answer in 1 seconds"}
    assert time.perf_counter() - began < 30


def test_every_form_is_measured_and_slow_or_broken_peers_hold_nobody_up(bundle, tmp_path, monkeypatch, capfd):
    modules = {
        "onnxruntime": ONNXRUNTIME,
        "onnx": "",
        "openvino": "",
        "torch": "",
        "timm": "raise RuntimeError('operator torchvision::nms does not exist\\nand more')",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def save(model, input_size, path, format, quantize, representative):
        if format == "openvino":
            raise RuntimeError("no plugin for this processor\nand more")
        path.write_text("")

    monkeypatch.setattr(onnx_file, "save", save)
    monkeypatch.setattr(Progress.__init__, "__defaults__", (None, 0.0, 0.0))
    words = ["--peers", "--rounds", "3", "--images", "40", "--seconds", "1", "--out", str(tmp_path / "out")]
    assert main(["benchmark", str(bundle.path), *words]) == 0
    out, err = capfd.readouterr()
    rows = {row["form"]: row for row in csv.DictReader(io.StringIO((tmp_path / "out/benchmark.csv").read_text()))}
    assert_every_form_is_measured(rows, out, tmp_path / "out")
    assert rows["onnx"]["cut_short"] == "1 of 3 rounds, 24 of 40 images"
    assert float(rows["onnx"]["images_per_second_batch_1"]) == pytest.approx(2.5, rel=0.3)
    assert "(slow: 1 of 3 rounds, 24 of 40 images)" in out
    for form in ("timm", "timm_compiled", "timm_bfloat16"):
        assert rows[form]["error"] == "not available: RuntimeError: operator torchvision::nms does not exist"
    for form in ("openvino", "openvino_bfloat16", "openvino_int8"):
        assert rows[form]["error"] == "not available: RuntimeError: no plugin for this processor"
    assert all(rows[form]["error"] == "" for form in (*OURS, *STOCK))
    # How far it is, form by form, and nothing of TensorFlow's.
    *progress, last = err.splitlines()
    assert last.startswith("wrote ")
    assert all(line.startswith(f"{bundle.path.name}: ") for line in progress), progress
    for doing in ("writing stock_tflite_int8", "comparing onnx", "timing onnx"):
        assert any(doing in line for line in progress)
