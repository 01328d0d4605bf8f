"""benchmarks/gpu.py: what it refuses, its tables from canned measurements, and a tiny run of it on the CPU."""

import json

import gpu
import gpu_worker
import numpy as np
import pytest

import keras_convmixer

QUICK = ["--device", "cpu", "--quick", "--backends", "tensorflow"]


def canned(sent):
    """What a worker would answer: a step takes a millisecond for each image."""
    names = ["forward", "backward", "copy"] if sent["task"] == "depthwise" else ["step"]
    seconds = dict.fromkeys(names, sent["batch_size"] / 1000)
    return {"seconds": seconds, "peak_memory": 2**31, "device": "A GPU"}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Runs the script with a function in the place of its workers. Gives the rows of gpu.json, and gpu.md."""

    def run(answer, *words):
        monkeypatch.setattr(gpu, "run", lambda sent, timeout: answer(sent))
        gpu.main(["--out", str(tmp_path / "out"), *QUICK, *words])
        found = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
        return found["rows"], (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")

    return run


@pytest.mark.parametrize(
    "words, message",
    [
        (["--models", "convmixer_9000"], "invalid choice: 'convmixer_9000'"),
        (["--backends", "jaxx"], "invalid choice: 'jaxx'"),
        (["--precisions", "int8"], "invalid choice: 'int8'"),
        (["--batch-size", "0"], "must be a whole number of at least 1, not '0'"),
        (["--steps", "2.5"], "must be a whole number of at least 1, not '2.5'"),
        (["--backends", "timm", "--tasks", "depthwise"], "on jax and tensorflow, not on timm"),
        (["--out", __file__], "test_gpu.py: File exists"),
    ],
)
def test_wrong_arguments_are_refused(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.NEEDS, "timm", [])  # installed or not
    with pytest.raises(SystemExit) as end:
        gpu.main(["--out", str(tmp_path), *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_backend_that_is_asked_for_and_not_installed(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(gpu.NEEDS, "timm", ["no_such_module"])
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--backends", "timm"])
    assert "timm is not installed: pip install no_such_module" in capsys.readouterr().err


def test_the_tables(measured, capsys):
    rows, page = measured(canned, "--rounds", "3")
    assert page in capsys.readouterr().out
    assert page.startswith("device A GPU, python ")
    train, depthwise = page.split("\n\n")[1:]
    line = next(line for line in train.splitlines() if "train" in line and "channels_first" in line)
    cells = "convmixer_1536_20 | train | plain | tensorflow | mixed_bfloat16 | channels_first | yes | 64"
    assert line == f"| {cells} | 1000.0 | 3 | 2.00 |  |"
    # 64 maps of 32×32×1536 in bfloat16 are 201,326,592 bytes; in 64 ms 2**28 are read and written.
    line = next(line for line in depthwise.splitlines() if "sum" in line)
    assert line.endswith("| 64 | 64.000 | 75% | 64.000 | 112% | 8 |  |")
    assert {row["form"] for row in rows} == {"plain", "folded", "whole", "sum"}
    assert all(len(row["rounds"]) == 3 for row in rows)


def test_only_kernels_above_7_have_a_sum(measured):
    rows, _ = measured(canned, "--tasks", "depthwise", "--models", "convmixer_768_32")
    assert {row["form"] for row in rows} == {"whole"}


def test_the_median_of_the_rounds_counts(measured):
    seconds = iter([0.1, 0.4, 0.2])

    def answer(sent):
        return canned(sent) | {"seconds": {"step": next(seconds)}}

    one = ["--tasks", "train", "--layouts", "channels_last", "--backends", "jax", "--batch-size", "8"]
    rows, _ = measured(answer, *one, "--rounds", "3")
    assert [row["images_per_second"] for row in rows] == [pytest.approx(8 / 0.2)]


def test_a_batch_is_halved_until_it_fits(measured):
    asked = []

    def answer(sent):
        asked.append(sent["batch_size"])
        if sent["batch_size"] > 16:
            return {"error": "ResourceExhaustedError: OOM", "out_of_memory": True}
        return canned(sent)

    words = ["--tasks", "train", "--layouts", "channels_last", "--backends", "jax", "--rounds", "2"]
    rows, _ = measured(answer, *words)
    assert asked == [64, 32, 16, 16]
    assert [(row["batch_size"], row["error"]) for row in rows] == [(16, None)]


def test_what_fails_is_a_row_and_the_rest_goes_on(measured):
    def answer(sent):
        if sent["layout"] == "channels_first":
            return {"error": "UnimplementedError: NHWC | only", "out_of_memory": False}
        return canned(sent)

    rows, page = measured(answer, "--tasks", "train", "--rounds", "2")
    assert [row["error"] for row in rows if row["layout"] == "channels_first"] == [
        "UnimplementedError: NHWC | only"
    ] * 2
    assert all(row["images_per_second"] for row in rows if row["layout"] == "channels_last")
    assert page.count("|  |  |  | UnimplementedError: NHWC / only |") == 2


def test_a_round_that_fails_leaves_those_before_it(measured):
    answers = iter([canned, lambda sent: {"error": "CUDA out of memory", "out_of_memory": True}])
    words = ["--tasks", "train", "--layouts", "channels_last", "--backends", "jax", "--rounds", "3"]
    rows, page = measured(lambda sent: next(answers)(sent), *words)
    assert [(row["batch_size"], len(row["rounds"]), row["error"]) for row in rows] == [
        (64, 1, "CUDA out of memory")
    ]
    assert "| 64 | 1000.0 | 1 | 2.00 | CUDA out of memory |" in page


def test_nothing_measured_is_an_error(measured):
    with pytest.raises(SystemExit, match="nothing could be measured"):
        measured(lambda sent: {"error": "no GPU", "out_of_memory": False})


def test_a_worker_that_ends_without_an_answer(monkeypatch, tmp_path):
    broken = tmp_path / "gpu_worker.py"
    broken.write_text("raise SystemExit('CUDA error: out of memory')")
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "gpu.py"))
    answer = gpu.run({"backend": "timm", "device": "gpu"}, timeout=60)
    assert answer == {"error": "ended with status 1: CUDA error: out of memory", "out_of_memory": True}
    broken.write_text("import time; time.sleep(60)")
    answer = gpu.run({"backend": "timm", "device": "gpu"}, timeout=1)
    assert answer == {"error": "took longer than 1 s", "out_of_memory": False}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_inference_in_half_precision_is_in_half_precision(activation, folded):
    model = keras_convmixer.ConvMixer(16, 2, 5, 4, input_shape=(16, 16, 3), num_classes=5, activation=activation)
    model = keras_convmixer.fold(model) if folded else model
    half = gpu_worker.in_precision(model, "mixed_float16")
    for name in ("block_0_depthwise", "block_1_depthwise", "block_1_pointwise"):  # what they take are sums
        assert half.get_layer(name).input.dtype == "float16"
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(half.predict_on_batch(images), model.predict_on_batch(images), atol=0.01)


@pytest.mark.parametrize(
    "text, line",
    [
        ("CUDA out of memory.\nTried to allocate 2 GiB", "CUDA out of memory."),
        (
            "Graph execution error:\n\nDetected at node a/b defined at (most recent call last):\n"
            "<stack traces unavailable>\nOnly NHWC on the CPU.\n\t [[{{node a/b}}]] [Op:__inference_1]",
            "Only NHWC on the CPU.",
        ),
    ],
)
def test_the_line_of_an_error_that_says_what_went_wrong(text, line):
    assert gpu_worker.reason(text) == line


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_tiny_run_on_the_cpu(backend, tmp_path):
    pytest.importorskip(backend)
    words = ["--device", "cpu", "--tiny", "--quick", "--backends", backend, "--precisions", "mixed_float16"]
    gpu.main(["--out", str(tmp_path), *words])
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["task"], row["form"]) for row in rows} == {
        ("train", "plain"),
        ("inference", "plain"),
        ("inference", "folded"),
        ("depthwise", "whole"),
        ("depthwise", "sum"),
    }
    for row in rows:
        if row["error"] and backend == "tensorflow" and row["layout"] == "channels_first" and not row["compiled"]:
            assert "NHWC" in row["error"]  # a CPU has no kernel of it
            continue
        assert row["error"] is None, row
        assert all(seconds > 0 for seconds in row["seconds"].values())
