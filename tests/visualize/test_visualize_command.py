"""`convmixer visualize`, and `save_figures` behind it."""

import json
import shutil
import tarfile
from pathlib import Path

import keras
import pytest
from PIL import Image

import keras_convmixer
from keras_convmixer import visualize
from keras_convmixer.cli import main

ROOT = Path(__file__).parent.parent.parent
DIGITS, EXAMPLES = ROOT / "saved_models" / "digits", ROOT / "examples" / "digits"
OF_THE_MODEL = ["depthwise_kernels.png", "effective_receptive_field.png", "patch_embedding.png"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_figures_and_their_list(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLES / "2.png", tmp_path / "photos" / "2.jpg")
    (tmp_path / "photos" / "letter.png").write_text("<html>")
    words = ["visualize", str(DIGITS), "--out", str(tmp_path / "out"), "--blocks", "0,3", "--json"]
    # What stands behind the options belongs to the images, too.
    assert main([*words, str(EXAMPLES / "2.png"), str(tmp_path / "photos")]) == 1
    found = json.loads(capsys.readouterr().out)
    own = [f"2{i}_{kind}.png" for i in ("", "_2") for kind in ("class_activation", "features")]
    assert names(tmp_path / "out") == sorted(OF_THE_MODEL + own)
    assert sorted(found["files"]) == [str(tmp_path / "out" / name) for name in names(tmp_path / "out")]
    first, second, letter = found["images"]
    assert first["path"] == str(EXAMPLES / "2.png")
    assert first["classes"] == second["classes"]
    (likeliest,) = first["classes"]
    (prediction,) = keras_convmixer.predict(DIGITS, EXAMPLES / "2.png", top=1)
    assert prediction.classes == ((likeliest["class"], pytest.approx(likeliest["probability"], abs=1e-5)),)
    assert [Path(path).name for path in second["files"]] == ["2_2_class_activation.png", "2_2_features.png"]
    assert letter["path"].endswith("letter.png")
    assert "not a JPEG" in letter["error"]
    for path in found["files"]:
        with Image.open(path) as image:
            assert min(image.size) > 300


def test_without_images_the_model_alone_is_drawn(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert main(["visualize", str(DIGITS), "--out", str(out), "--blocks", "0"]) == 0
    assert names(out) == OF_THE_MODEL
    assert sorted(capsys.readouterr().out.splitlines()) == [f"wrote {out / name}" for name in OF_THE_MODEL]


@pytest.mark.parametrize("of_class, index", [("7", 8), (None, 2)])
def test_the_class_of_the_maps(of_class, index, digit, tmp_path):
    classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "7", "nine"]
    bundle = keras_convmixer.load(DIGITS, classes)
    found = visualize.save_figures(bundle, tmp_path / "out", EXAMPLES / "2.png", of_class=of_class, blocks=[3])
    ((prediction, (maps, _)),) = found.images
    assert prediction.classes[0][0] == "two"
    assert "2.png: two, " in found.as_table()
    expected = visualize.plot_class_activation_maps(
        bundle.model, digit, class_index=index, classes=classes, blocks=[3], name="2.png"
    )
    expected.savefig(tmp_path / "expected.png")
    with Image.open(maps) as image, Image.open(tmp_path / "expected.png") as other:
        assert list(image.getdata()) == list(other.getdata())


@pytest.mark.parametrize(
    "words, expected",
    [
        ([str(DIGITS), "--blocks", "4"], "no block 4: this model has 0 to 3"),
        ([str(DIGITS), "--blocks", "0,last"], "--blocks 0,last: expected numbers with commas between them"),
        ([str(DIGITS), "--class", "ten"], "no class 'ten': give a name or 0 to 9"),
        ([str(DIGITS), "--class", "10"], "no class '10'"),
        ([str(DIGITS), "nowhere.png"], "nowhere.png: no such file"),
        (["nowhere"], "nowhere: no such model folder"),
        ([str(DIGITS / "model_int8.tflite")], "model_int8.tflite is an exported file, which cannot be looked into"),
        (["other.keras", "--classes", "names"], "other is not a ConvMixer of this package"),
        ([str(DIGITS), "--out", "full"], "full is not empty: give a new or empty folder"),
        ([str(DIGITS), "--out", "names"], "names is a file: give a new or empty folder"),
    ],
)
def test_bad_input_gets_one_line_and_no_file(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = keras.Input((8, 8, 3))
    keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)), name="other").save("other.keras")
    Path("names").write_text("a\nb\n")
    Path("full").mkdir()
    Path("full", "patch_embedding.png").write_text("mine")
    before = names(tmp_path)
    words = words if "--out" in words else [*words, "--out", "out"]
    assert main(["visualize", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert err.count("\n") == 1
    assert names(tmp_path) == before
    assert Path("full", "patch_embedding.png").read_text() == "mine"


def test_an_out_folder_is_asked_for(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["visualize", str(DIGITS)])
    assert caught.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_of_photographs(imagenet_samples, tmp_path, capsys):
    with tarfile.open(imagenet_samples) as archive:
        archive.extract("images/n01440764_tench.JPEG", tmp_path, filter="data")
    model = keras_convmixer.create_model("convmixer_768_32", classifier_activation=None)
    model.save(tmp_path / "random.keras")
    words = ["--class", "goldfish", "--out", str(tmp_path / "out"), "--json"]
    assert main(["visualize", str(tmp_path / "random.keras"), str(tmp_path / "images"), *words]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 5
