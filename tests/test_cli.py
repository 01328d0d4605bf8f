import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import keras_convmixer
from keras_convmixer.cli import main, models
from keras_convmixer.errors import UserError

SMALL = ["model.dim=8", "model.depth=1", "augmentation.crop_scale=null", "training.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command: a weak model of the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    overrides = [word for override in SMALL for word in ("--set", override)]
    assert main(["train", "--recipe", "digits", "--workdir", str(folder), *overrides]) == 0
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(path)
    return path


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_evaluate_prints_and_writes(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    summary = json.loads(said(capsys)[0])
    assert summary["images"] == 359
    assert 0 < summary["top1"] <= summary["top5"] <= 1
    folder = run / "evaluation" / "validation"
    assert json.loads((folder / "metrics.json").read_text()) == summary
    rows = (folder / "confusion_matrix.csv").read_text().splitlines()
    assert rows[0] == "true class,0,1,2,3,4,5,6,7,8,9"
    assert sum(int(count) for row in rows[1:] for count in row.split(",")[1:]) == 359
    with Image.open(folder / "confusion_matrix.png") as image:
        assert image.size > (400, 400)
    assert main(["evaluate", str(run), "--split", "all", "--out", str(folder.parent / "all")]) == 0
    assert "all: 1797 images, 0 skipped" in said(capsys)[0]


def test_predict_names_classes_and_reports_what_is_no_image(run, photo, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("<html>")
    assert main(["predict", str(run), str(photo), "--top", "3", "--json"]) == 0
    (row,) = json.loads(said(capsys)[0])
    assert len(row["classes"]) == 3
    assert main(["predict", str(run), str(tmp_path / "*.png")]) == 1
    out, _ = said(capsys)
    assert "letter.png" in out
    assert "photo.png" in out


def test_export_reports_its_comparison(run, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(run), "--format", "tflite", "--out", str(out), "--json"]) == 0
    assert json.loads(said(capsys)[0])["format"] == "tflite"
    assert {"model.tflite", "labels.txt", "preprocessing.json"} <= {path.name for path in out.iterdir()}


def test_convert_goes_both_ways(oracles, run, tmp_path, capsys):
    source = oracles / "weights" / "gelu_k9_p7.state_dict.pth"
    keras_file = tmp_path / "model.keras"
    assert main(["convert", str(source), "--out", str(keras_file), "--activation", "gelu"]) == 0
    (tmp_path / "names").write_text("".join(f"class {i}\n" for i in range(11)))
    arguments = ["--activation", "gelu", "--classes", str(tmp_path / "names")]
    assert main(["convert", str(source), "--out", str(tmp_path / "folder"), *arguments]) == 0
    assert main(["convert", str(tmp_path / "folder"), "--out", str(tmp_path / "back.safetensors")]) == 0
    again = tmp_path / "again.keras"
    assert main(["convert", str(tmp_path / "back.safetensors"), "--out", str(again), "--activation", "gelu"]) == 0

    import keras

    first, second = (keras.saving.load_model(path) for path in (keras_file, again))
    for a, b in zip(first.get_weights(), second.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name", ["gelu_k9_p7", "relu_k7_p7", "gelu_k8_p2_even_kernel", "gelu_k5_p7_ragged_input", "gelu_k5_p2_gray"]
)
def test_a_converted_file_answers_as_timm(oracles, name, tmp_path, capsys):
    import keras

    folder = oracles / "weights"
    (about,) = [row for row in json.loads((folder / "index.json").read_text())["models"] if row["name"] == name]
    io = np.load(folder / f"{name}.io.npz")
    height, width, channels = io["input_nhwc"].shape[1:]
    mean, std = ([0.5, 0.4, 0.3][:channels], [0.2, 0.25, 0.3][:channels])
    words = ["--activation", about["act"], "--input-size", str(height), str(width)]
    words += ["--mean", *map(str, mean), "--std", *map(str, std)]
    out = tmp_path / "model.keras"
    assert main(["convert", str(folder / f"{name}.state_dict.pth"), "--out", str(out), *words]) == 0
    model = keras.saving.load_model(out)
    images = 255 * (io["input_nhwc"] * np.float32(std) + np.float32(mean))
    exponentials = np.exp(io["logits"] - io["logits"].max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=2e-5)


@pytest.mark.parametrize("words", [[], ["--ema"]])
@pytest.mark.parametrize("name", ["original_sequential.pth.tar", "original_sequential_ddp.pth.tar"])
def test_the_authors_files_are_converted(oracles, name, words, tmp_path, capsys):
    import keras

    folder, out = oracles / "weights", tmp_path / "folder"
    io = np.load(folder / "original_sequential.io.npz")
    (tmp_path / "names").write_text("".join(f"class {i}\n" for i in range(io["logits"].shape[1])))
    height, width, _ = io["input_nhwc"].shape[1:]
    words = [*words, "--activation", "gelu", "--classes", str(tmp_path / "names"), "--std", "0.2", "0.2", "0.2"]
    words += ["--input-size", str(height), str(width)]
    assert main(["convert", str(folder / name), "--out", str(out), *words]) == 0
    preprocessing = json.loads((out / "preprocessing.json").read_text())
    assert preprocessing["input_size"] == [height, width]
    assert preprocessing["std"] == [0.2, 0.2, 0.2]
    assert preprocessing["mean"] == [0.485, 0.456, 0.406]
    images = 255 * (io["input_nhwc"] * np.float32(preprocessing["std"]) + np.float32(preprocessing["mean"]))
    logits = keras.saving.load_model(out / "model.keras").predict(images, verbose=0)
    expected = io["logits_ema" if "--ema" in words else "logits"]
    assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()


def test_a_grey_or_headless_checkpoint_becomes_no_model_folder(oracles, tmp_path, capsys):
    source = oracles / "weights" / "gelu_k5_p2_gray.safetensors"
    assert main(["convert", str(source), "--out", str(tmp_path / "folder"), "--activation", "gelu"]) == 1
    assert "takes 1 channels and has a head: only a .keras file holds such a model" in said(capsys)[1]
    assert not (tmp_path / "folder").exists()


def test_a_hostile_checkpoint_is_refused(oracles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = str(oracles / "weights" / "hostile.pth.tar")
    assert main(["convert", source, "--out", "model.keras"]) == 1
    assert said(capsys)[1].count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_models_lists_the_variants(capsys):
    assert main(["models"]) == 0
    assert "convmixer_1536_20 " in said(capsys)[0]
    assert main(["models", "--json"]) == 0
    assert json.loads(said(capsys)[0])["convmixer_768_32"]["top1"] == 80.158


@pytest.mark.parametrize(
    "words,expected",
    [
        (["train", "--recipe", "cifar11", "--workdir", "W"], "cifar11: no such recipe"),
        (["train", "--workdir", "W", "--set", "training.epoch=5"], "did you mean 'training.epochs'"),
        (["train", "--workdir", "W", "--data", "./nowhere"], "nowhere: no such file or folder"),
        (["train", "--workdir", "W", "--devices", "GPU:3"], "no device GPU:3 here"),
        (["evaluate", "nowhere"], "nowhere: no such model folder"),
        (["predict", "nowhere", "photo.png"], "photo.png"),
        (["export", "nowhere", "--out", "D"], "nowhere: no such model folder"),
        (["convert", "nowhere.pth", "--out", "m.keras"], "nowhere.pth"),
    ],
)
def test_bad_input_gets_one_line(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    out, err = said(capsys)
    assert out == ""
    assert err.startswith("convmixer: ")
    assert expected in err
    assert err.count("\n") == 1


def test_the_run_of_another_recipe_is_refused(run, capsys):
    before = (run / "model.keras").read_bytes()
    assert main(["train", "--recipe", "digits", "--workdir", str(run)]) == 1
    assert "is the run of another recipe" in said(capsys)[1]
    assert (run / "model.keras").read_bytes() == before


@pytest.mark.parametrize("words", [[], ["train"], ["export", "m", "--out", "d", "--format", "coreml"], ["fly"]])
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: convmixer" in said(capsys)[1]


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
            "a fault of this program, please report it: ValueError: two and two",
            70,
        ),
        (KeyError("weight"), "CONVMIXER_TRACEBACK=1 in the environment shows where", 70),
    ],
)
def test_whose_fault_an_error_is_can_be_told(error, expected, code, monkeypatch, capsys):
    def fails(arguments):
        raise error

    monkeypatch.setattr(models, "run", fails)
    monkeypatch.delenv("CONVMIXER_TRACEBACK", raising=False)
    assert main(["models"]) == code
    err = said(capsys)[1]
    assert expected in err
    assert err.count("\n") == 1
    monkeypatch.setenv("CONVMIXER_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["models"])


def test_a_keras_file_with_class_names_goes_into_every_command(photo, tmp_path, capsys):
    model = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=10)
    model.save(tmp_path / "mine.keras")
    (tmp_path / "names").write_text("".join(f"{i}\n" for i in range(10)))
    file, names = str(tmp_path / "mine.keras"), ["--classes", str(tmp_path / "names")]
    assert main(["predict", file, str(photo)]) == 1
    assert "--classes and a file" in said(capsys)[1]
    assert main(["predict", file, str(photo), *names, "--top", "1", "--json"]) == 0
    assert json.loads(said(capsys)[0])[0]["classes"][0]["class"] in "0123456789"
    assert main(["evaluate", file, *names, "--data", "digits", "--out", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(said(capsys)[0])["images"] == 1797
    assert (
        main(["export", file, *names, "--data", "digits", "--format", "tflite", "--out", str(tmp_path / "x")]) == 0
    )
    assert (tmp_path / "x" / "labels.txt").read_text() == (tmp_path / "names").read_text()
