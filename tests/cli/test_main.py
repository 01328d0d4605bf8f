"""What the command line does with mistakes, faults and what native code says."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convmixer.cli import main, models
from keras_convmixer.errors import UserError


@pytest.mark.parametrize(
    "words,expected",
    [
        (["train", "--recipe", "cifar11", "--workdir", "W"], "cifar11: no such recipe"),
        (["train", "--workdir", "W"], "name a recipe (--recipe), or images (--data)"),
        (["train", "--workdir", "W", "--set", "training.epochs=5"], "W is not the folder of a run"),
        (
            ["train", "--recipe", "digits", "--workdir", "W", "--set", "training.epoch=5"],
            "did you mean 'training.epochs'",
        ),
        (
            ["train", "--recipe", "digits", "--workdir", "W", "--data", "./nowhere"],
            "nowhere: no such file or folder",
        ),
        (["train", "--recipe", "digits", "--workdir", "W", "--devices", "GPU:3"], "no device GPU:3 here"),
        (["evaluate", "nowhere"], "nowhere: no such model folder"),
        (["predict", "nowhere", "photo.png"], "photo.png"),
        (["predict", "nowhere", "photo.png", "--top", "0"], "top and batch_size must be at least 1, got 0"),
        (["evaluate", "nowhere", "--batch-size", "-1"], "nowhere: no such model folder"),
        (["benchmark", "convmixer_tiny", "--rounds", "0"], "rounds must be at least 1, got 0"),
        (["benchmark", "convmixer_tiny", "--threads", "0"], "threads must be at least 1, got 0"),
        (["train", "--recipe", "digits", "--workdir", "W", "--devices", "CPU:x"], "no device CPU:X here"),
        (
            ["train", "--recipe", "digits", "--workdir", "W", "--data", "~nobody-of-this-name/photos"],
            "~nobody-of-this-name/photos: no such",
        ),
        (["train", "--recipe", "~nobody-at-all.yaml", "--workdir", "W"], "no such recipe"),
        (["export", "nowhere", "--out", "D"], "nowhere: no such model folder"),
        (["convert", "nowhere.pth", "--out", "m.keras"], "nowhere.pth"),
    ],
)
def test_bad_input_gets_one_line(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("convmixer: ")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["train"], ["export", "m", "--out", "d", "--format", "coreml"], ["fly"]])
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: convmixer" in capsys.readouterr().err


def test_nothing_but_the_answer_is_printed(run, photo):
    command = [sys.executable, "-m", "keras_convmixer", "predict", str(run), str(photo), "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert len(json.loads(done.stdout)) == 1


@pytest.mark.parametrize(
    "error, expected, code",
    [
        (UserError("the photo is upside down"), "convmixer: the photo is upside down\n", 1),
        (
            FileNotFoundError(2, "No such file or directory", "a.png"),
            "convmixer: a.png: No such file or directory\n",
            1,
        ),
        (
            ValueError("two and two\nmake five"),
            "/keras_convmixer/issues: ValueError: two and two make five (CONVMIXER_TRACEBACK=1",
            70,
        ),
        (KeyError("weight"), "CONVMIXER_TRACEBACK=1 in the environment shows where", 70),
        (RuntimeError(), "a fault of this program, please report it at https://github.com/", 70),
        (
            ImportError('onnx needs onnxruntime: python -m pip install "x"'),
            "convmixer: onnx needs onnxruntime: python",
            1,
        ),
        (MemoryError(), "convmixer: MemoryError\n", 1),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\na tensor"), "convmixer: OOM when", 1),
        (UserError("\x1b[31mred\x9b.png"), r"convmixer: \x1b[31mred\x9b.png", 1),
    ],
)
def test_whose_fault_an_error_is_can_be_told(error, expected, code, monkeypatch, capsys):
    def fails(arguments):
        raise error

    monkeypatch.setattr(models, "run", fails)
    monkeypatch.delenv("CONVMIXER_TRACEBACK", raising=False)
    assert main(["models"]) == code
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    monkeypatch.setenv("CONVMIXER_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["models"])


def test_warnings_are_lines_and_only_while_the_command_runs(monkeypatch, capsys):
    monkeypatch.setattr(models, "run", lambda arguments: warnings.warn("a name: \x1b[2J", stacklevel=1))
    before = warnings.showwarning, warnings.formatwarning
    assert main(["models"]) == 0
    assert capsys.readouterr().err == "convmixer: a name: \\x1b[2J\n"
    assert (warnings.showwarning, warnings.formatwarning) == before


NATIVE = """
import os, sys
from keras_convmixer.cli import main, models
from keras_convmixer.cli.quiet import quiet_native_code

@quiet_native_code()
def run(arguments):
    os.write(2, b"native\\n")
    print("python", file=sys.stderr)
    if {error}:
        raise {error}

models.run = run
code = main(["models"])
os.write(2, b"after\\n")
sys.exit(code)
"""


@pytest.mark.parametrize(
    "error, expected, code",
    [
        ("None", "python\nafter\n", 0),
        ("OSError('gone')", "python\nnative\nconvmixer: gone\nafter\n", 1),
    ],
)
def test_native_code_is_heard_only_when_something_fails(error, expected, code):
    command = [sys.executable, "-c", NATIVE.format(error=error)]
    environment = {k: v for k, v in os.environ.items() if k != "CONVMIXER_TRACEBACK"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stderr, done.returncode) == (expected, code)
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"CONVMIXER_TRACEBACK": "1"})
    assert done.stderr.startswith("native\npython\n")


def test_what_the_converter_and_libjpeg_say_is_held_back(run, tmp_path):
    photo = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photo)
    photo.write_bytes(photo.read_bytes()[:-40])
    for words in (
        ["export", str(run), "--format", "tflite", "--out", str(tmp_path)],
        ["predict", str(run), str(photo)],
    ):
        command = [sys.executable, "-m", "keras_convmixer", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout


ONEDNN = """
import os
from unittest import mock
from keras_convmixer.cli import main
with mock.patch("keras_convmixer.cli.main.cpu_flags", {flags!r}.split):
    main(["recipe", "show", "digits"])
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.parametrize(
    "flags, given, expected",
    [("sse avx2", {}, "1"), ("sse", {}, "None"), ("avx2", {"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")],
)
def test_tensorflow_takes_onednn_where_there_is_avx2_unless_told_otherwise(flags, given, expected):
    code = ONEDNN.format(flags=flags)
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == expected
