"""The subcommands, from arguments to what is printed and written."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_convmixer
from keras_convmixer import shipped
from keras_convmixer.cli import main

SMALL = ("model.dim=8", "model.depth=1", "augmentation.crop_scale=null", "training.epochs=1")


def test_evaluate_prints_and_writes(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "--per-image", str(tmp_path / "images.csv")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["images"] == 359
    assert 0 < summary["top1"] <= summary["top5"] <= 1
    folder = run / "evaluation" / "validation"
    assert json.loads((folder / "metrics.json").read_text()) == summary
    with open(tmp_path / "images.csv", encoding="utf-8") as file:
        header, *images = csv.reader(file)
    assert header == ["path", "label", "prediction", "probability"]
    assert np.mean([label == prediction for _, label, prediction, _ in images]) == pytest.approx(summary["top1"])
    rows = (folder / "confusion_matrix.csv").read_text().splitlines()
    assert rows[0] == "true class,0,1,2,3,4,5,6,7,8,9"
    assert sum(int(count) for row in rows[1:] for count in row.split(",")[1:]) == 359
    with Image.open(folder / "confusion_matrix.png") as image:
        assert image.size > (400, 400)
    assert main(["evaluate", str(run), "--split", "all", "--out", str(folder.parent / "all")]) == 0
    assert "all: 1797 images, 0 skipped" in capsys.readouterr().out


def test_figures_of_other_data_or_made_otherwise_have_a_place_of_their_own(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    assert main(["evaluate", str(folder)]) == 0
    own = (folder / "evaluation" / "validation" / "metrics.json").read_bytes()
    data = {"source": "digits", "images": {"validation": 359}}
    assert json.loads(own)["data"] == data
    assert main(["evaluate", str(folder), "--flip"]) == 0
    flipped = json.loads((folder / "evaluation" / "validation_flip" / "metrics.json").read_text())
    assert (flipped["data"], flipped["test_time_flip"]) == (data, True)
    photos = photographs(tmp_path / "photos", "1", "2")
    assert main(["evaluate", str(folder), "--data", photos]) == 0
    found = json.loads((folder / "evaluation" / "photos" / "all" / "metrics.json").read_text())
    assert found["data"]["source"] == photos
    assert (folder / "evaluation" / "validation" / "metrics.json").read_bytes() == own


def test_evaluate_refuses_a_place_for_its_figures_before_all_else(run, tmp_path, capsys):
    before = (run / "metrics.json").read_bytes()
    (tmp_path / "file").touch()
    for out, why in (
        (run, "is a model's own folder, whose metrics.json stays"),
        (tmp_path / "file", "cannot be a folder"),
    ):
        assert main(["evaluate", str(run), "--split", "train", "--out", str(out)]) == 1
        told = capsys.readouterr()
        assert why in told.err
        assert (told.out, told.err.count("\n")) == ("", 1)
    assert (run / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("place, why", [("none/images.csv", "there is no folder"), ("", "is no file")])
def test_a_place_where_no_rows_can_be_written_is_refused_before_all_else(place, why, tmp_path, capsys):
    assert main(["evaluate", "no/such/model", "--per-image", str(tmp_path / place)]) == 1
    out, err = capsys.readouterr()
    assert why in err
    assert (out, err.count("\n")) == ("", 1)


def test_predict_names_classes_and_reports_what_is_no_image(run, photo, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("<html>")
    assert main(["predict", str(run), str(photo), "--top", "3", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["classes"]) == 3
    assert main(["predict", str(run), str(tmp_path / "*.png")]) == 1
    out, _ = capsys.readouterr()
    assert "letter.png" in out
    assert "photo.png" in out


def test_export_reports_its_comparison(run, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(run), "--format", "tflite", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "tflite"
    assert {"model.tflite", "labels.txt", "input.json"} <= {path.name for path in out.iterdir()}


def test_models_lists_the_variants(capsys):
    assert main(["models"]) == 0
    published, trained = capsys.readouterr().out.split("\n\n")
    assert "convmixer_1536_20 " in published
    assert re.search(r"convmixer_256_8_ks5_p2 .* 92\.60 ", published)
    measured = json.loads((shipped.folder("convmixer_256_8_ks5_p2") / "metrics.json").read_text())
    assert re.search(rf"convmixer_256_8_ks5_p2 .* {100 * measured['top1']:.2f}  10,000  cifar10\n", trained)
    assert re.search(r"digits +25,354  8x8 +99\.72 +359  digits\n", trained)
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["convmixer_768_32"]["top1"] == 80.158
    assert listed["convmixer_768_32"]["weights"] == ["imagenet"]
    assert listed["convmixer_tiny"]["weights"] == []
    assert (listed["convmixer_tiny"]["trained"], listed["convmixer_256_8_ks5_p2"]["top1"]) == (None, 92.60)
    assert listed["convmixer_256_8_ks5_p2"]["trained"] == {
        "top1": pytest.approx(100 * measured["top1"]),
        "images": 10_000,
    }
    assert listed["convmixer_192_8_ks7_p4"]["trained"]["top1"] == 81.39
    assert {*keras_convmixer.list_models(), *shipped.names()} == listed.keys()
    assert len({frozenset(row) for row in listed.values()}) == 1


def test_the_run_of_another_recipe_is_refused(run, capsys):
    before = (run / "model.keras").read_bytes()
    assert main(["train", "--recipe", "digits", "--workdir", str(run)]) == 1
    assert "is the run of another recipe" in capsys.readouterr().err
    assert (run / "model.keras").read_bytes() == before


def test_a_keras_file_with_class_names_goes_into_every_command(photo, tmp_path, capsys):
    model = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=10)
    model.save(tmp_path / "mine.keras")
    (tmp_path / "names").write_text("".join(f"{i}\n" for i in range(10)))
    file, names = str(tmp_path / "mine.keras"), ["--classes", str(tmp_path / "names")]
    assert main(["predict", file, str(photo)]) == 1
    assert "--classes and a file" in capsys.readouterr().err
    assert main(["predict", file, str(photo), *names, "--top", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["classes"][0]["class"] in "0123456789"
    assert main(["evaluate", file, *names, "--data", "digits", "--out", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1797
    assert (
        main(["export", file, *names, "--data", "digits", "--format", "tflite", "--out", str(tmp_path / "x")]) == 0
    )
    assert (tmp_path / "x" / "labels.txt").read_text() == (tmp_path / "names").read_text()


def photographs(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), 60 * i).save(folder / name / f"{i}.png")
    return str(folder)


@pytest.mark.parametrize("name", ["a\nb", "a\r", "a\u2028b", "\x1b[2Jcat"])
def test_class_names_that_no_terminal_can_show_are_refused_before_training(name, tmp_path, capsys):
    data = photographs(tmp_path / "photos", "dog", name)
    for words in (["data", data], ["train", "--data", data, "--workdir", str(tmp_path / "run")]):
        assert main([*words, "--recipe", "digits"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{name!r} cannot name a class: expected one line of visible characters" in err
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
    assert not (tmp_path / "run").exists()


def test_names_of_files_do_not_steer_the_terminal(run, tmp_path, capsys):
    data = photographs(tmp_path / "photos", "1", "2")
    for digit in "12":
        (tmp_path / "photos" / digit / "\x1b[2J\x9b.png").write_text("no image")
    words = [
        "evaluate",
        str(run),
        "--data",
        data,
        "--allow-corrupt",
        "--split",
        "all",
        "--out",
        str(tmp_path / "e"),
    ]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert r"skipped 1/\x1b[2J\x9b.png" in err
    assert not set(err) & set("\x1b\x9b")
    for words in (
        ["data", data, "--no-timing"],
        ["data", data, "--no-timing", "--json"],
        ["predict", str(run), data],
    ):
        main([*words, *(["--set", "data.allow_corrupt=true"] if words[0] == "data" else [])])
        out, err = capsys.readouterr()
        assert "[2J" in out
        assert not set(out + err) & set("\x1b\x9b")


def test_photographs_without_a_recipe_are_for_finetune_and_it_is_said(tmp_path, capsys, monkeypatch):
    # Nothing listens there: as on a machine without a network.
    first, second = (f"http://127.0.0.1:9/{name}" for name in ("model.safetensors", "other.pth.tar"))
    monkeypatch.setattr("keras_convmixer.variants.weight_sources", lambda name: (first, second))
    data, workdir = photographs(tmp_path / "photos", "cat", "dog"), tmp_path / "run"
    batch = ["--set", "training.batch_size=4"]
    assert main(["train", "--data", data, "--workdir", str(workdir), *batch]) == 1
    said, error = capsys.readouterr().err.splitlines()
    assert said == "convmixer: no --recipe was given: taking finetune"
    assert not (workdir / "recipe.yaml").exists()
    # What to do without a network, as the command line says it.
    assert f"{first}: the server cannot be reached" in error
    assert second in error
    assert "--set model.weights=FILE" in error
    assert "convmixer convert FILE --out model.keras" in error
    assert '="http' not in error
    assert main(["data", data, "--no-timing", "--set", "model.input_size=[8, 8]"]) == 0
    out, err = capsys.readouterr()
    assert err == "convmixer: no --recipe was given: taking finetune\n"
    assert "training input" not in out
    assert main(["data", data, "--no-timing", "--recipe", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["images_per_second"] == {}


def test_a_training_on_few_classes_names_no_top_5(tmp_path, capsys):
    data = photographs(tmp_path / "photos", "cat", "dog")
    words = [*SMALL, "training.batch_size=4"]
    words = [word for override in words for word in ("--set", override)]
    assert main(["train", "--recipe", "digits", "--data", data, "--workdir", str(tmp_path / "run"), *words]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "top-1" in last
    assert "top-5" not in last
