"""`convmixer data`: what is in a data set and what a recipe makes of it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_convmixer import Preprocessing
from keras_convmixer.cli import main
from keras_convmixer.data import datasets, survey
from keras_convmixer.data.encoded_images import in_memory
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.progress import Progress
from keras_convmixer.recipes import Augmentation

RECIPE = Augmentation(crop_scale=(0.5, 1.0), flip=0.5, mixup=0.5, cutmix=0.5, random_erasing=0.5)
SIZE = Preprocessing((16, 16), 1.0, "bilinear")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six cats of growing size and three dogs, of which one is no image."""
    root = tmp_path_factory.mktemp("photos")
    for name, count in ("cat", 6), ("dog", 3):
        (root / name).mkdir()
        for i in range(count):
            image = np.full((20 + i, 30, 3), 40 * i, np.uint8)
            Image.fromarray(image).save(root / name / f"{i}.png")
    (root / "dog" / "2.png").write_text("<html></html>")
    return root


def test_counts_sizes_and_unreadable_files_and_timing(photos, monkeypatch, capsys):
    monkeypatch.setattr(Progress.__init__, "__defaults__", (None, 0.0, 0.0))
    dataset = datasets.open_dataset(photos, allow_corrupt=True)
    found = survey.survey(dataset, SIZE, RECIPE)
    train, validation = found.splits["train"], found.splits["validation"]
    assert {name: train.counts[name] + validation.counts[name] for name in train.counts} == {"cat": 6, "dog": 2}
    sizes = np.concatenate([train.sizes, validation.sizes])
    assert sorted(map(tuple, sizes)) == sorted([(20 + i, 30) for i in range(6)] + [(20, 30), (21, 30)])
    assert train.unreadable == (("dog/2.png", "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"),)
    assert list(found.stages) == ["read", "decode, crop", "augment", "mix", "all"]
    assert all(rate is None or rate > 0 for rate in found.stages.values())
    table = found.as_table()
    assert "dog/2.png: not a JPEG" in table
    assert "images/s" in table
    lines = capsys.readouterr().err.splitlines()
    for stage in ("read", "decode, crop", "augment", "mix"):
        assert any(line.startswith(f"timing the training input: {stage}: ") for line in lines)


def test_of_many_images_some_are_looked_at_and_of_many_classes_some_named():
    dataset = datasets.open_dataset("digits")
    found = survey._split("train", dataset.training(), most=50)
    assert found.looked_at == len(found.sizes) == 50
    lines = survey.Survey("digits", {"train": found}, {"all": 1.0}).lines(most=4)
    assert any("(50 looked at)" in line for line in lines)
    assert len(lines) < 15


def test_a_stage_that_takes_next_to_nothing_is_named_too():
    table = survey.Survey("digits", {}, {"read": None, "decode, crop": 1234.5, "all": 1234.5}).as_table()
    assert "read         too fast to tell" in table
    assert "decode, crop      1,234 images/s" in table


def test_a_contact_sheet_shows_the_batch_that_the_model_will_see(tmp_path):
    images = datasets.open_dataset("digits").training()
    plain = Preprocessing((8, 8), 1.0, "bilinear")
    survey.write_contact_sheet(tmp_path / "sheet.png", images, plain, Augmentation(), seed=3)
    stream = training_batches(images, plain, Augmentation(), batch_size=64, seed=3, epochs=1)
    pixels, _ = next(stream.as_numpy_iterator())
    with Image.open(tmp_path / "sheet.png") as sheet:
        tile = np.asarray(sheet.crop((6, 6, 6 + 112, 6 + 112)))
    np.testing.assert_array_equal(tile[7::14, 7::14], pixels[0].round())


def test_timing_can_be_left_out(photos, monkeypatch, capsys):
    monkeypatch.setattr(Progress.__init__, "__defaults__", (None, 0.0, 0.0))
    dataset = datasets.open_dataset(photos, allow_corrupt=True)
    assert survey.survey(dataset, SIZE, RECIPE, timing=False).stages == {}
    assert "timing" not in capsys.readouterr().err


def test_the_command_prints_and_writes(photos, tmp_path, capsys):
    words = ["data", str(photos), "--recipe", "digits", "--set", "model.input_size=[16, 16]", "--json"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == json.loads((tmp_path / "data.json").read_text())
    assert found["splits"]["train"]["unreadable"][0]["name"] == "dog/2.png"
    assert set(found["images_per_second"]) >= {"all"}
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 100


@pytest.mark.parametrize(
    "words, expected",
    [
        (["./nowhere", "--recipe", "digits"], "nowhere: no such file or folder"),
        (["digits", "--recipe", "digit"], "digit: no such recipe"),
        (["digits", "--set", "augmentation.flips=1"], "did you mean 'augmentation.flip'"),
    ],
)
def test_bad_input_gets_one_line(words, expected, capsys):
    assert main(["data", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert err.count("\n") == 1


def captions(path, classes):
    """A contact sheet of two classes, and what stands below its first image of each."""
    labels, pixels = np.array([0, 1] * 4), [Image.new("L", (8, 8), 255)] * 8
    encoded = []
    for image in pixels:
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded.append(file.getvalue())
    images = in_memory(classes, labels, map(str, labels), encoded)
    survey.write_contact_sheet(path, images, Preprocessing((8, 8), 1.0, "bilinear"), Augmentation())
    with Image.open(path) as sheet:
        rows = np.asarray(sheet)[6 + 112 : 6 + 112 + 16]
        tiles = [rows[:, 6 + i * 118 : 6 + (i + 1) * 118] for i in range(8)]
        return sheet.height, {tile.tobytes() for tile in tiles}


def test_captions_are_drawn_in_a_font_that_has_their_letters(tmp_path, own_font):
    height, shown = captions(tmp_path / "sheet.png", ("犬", "猫"))
    assert len(shown) == 2, "boxes would be alike"
    assert height == captions(tmp_path / "sheet.png", ("a", "b"))[0]


def test_classes_whose_names_no_font_has_are_numbered(tmp_path, no_such_font):
    height, shown = captions(tmp_path / "sheet.png", ("犬", "猫"))
    assert shown == captions(tmp_path / "sheet.png", ("#1", "#2"))[1]
    assert height > captions(tmp_path / "sheet.png", ("a", "b"))[0], "it is said what the numbers are"
