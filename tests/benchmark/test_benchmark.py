import csv
import io
import json

import pytest

from keras_convmixer.benchmark.forms import OURS
from keras_convmixer.benchmark.measure import benchmark
from keras_convmixer.benchmark.report import Benchmark, Row
from keras_convmixer.cli import main


def test_every_form_of_a_model_is_measured(bundle, tmp_path, capsys):
    assert main(["benchmark", str(bundle.path), "--rounds", "2", "--images", "16", "--out", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "fastest here, one image at a time: " in table
    rows = list(csv.DictReader(io.StringIO((tmp_path / "benchmark.csv").read_text())))
    assert [row["form"] for row in rows] == list(OURS)
    for row in rows:
        assert row["error"] == ""
        assert float(row["images_per_second_batch_1"]) > 0 < float(row["images_per_second_batch_8"])
        assert float(row["agreement"]) >= (0.9 if row["form"] == "tflite_int8" else 0.98)
        assert int(row["size"]) > 0 < int(row["peak_memory"])
        assert row["form"] in table
    assert json.loads((tmp_path / "benchmark.json").read_text())["machine"]["threads"] >= 1
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_a_form_that_fails_does_not_stop_the_others():
    row = Row("m", "keras", {1: 2.0, 8: 3.0}, {1: 0.1, 8: 0.1}, 10, 20, 1.0, 0.0)
    failed = Row("m", "timm", {}, {}, error="not installed: timm")
    result = Benchmark((row, failed), {"threads": 2})
    assert result.fastest("m") == row
    assert any(line.split() == ["timm", "not", "installed:", "timm"] for line in result.as_table().splitlines())
    assert list(csv.DictReader(io.StringIO(result.as_csv())))[1]["error"] == "not installed: timm"


@pytest.mark.parametrize("arguments", [{"rounds": 0}, {"images": 0}, {"threads": 0}])
def test_bad_numbers(bundle, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        benchmark(bundle, **arguments)
