"""TIFF, AVIF and HEIC photographs, from a folder and from an archive to every use; and HEIC without its extra."""

import json
import sys
import zipfile

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from keras_convmixer import Preprocessing
from keras_convmixer.cli import main
from keras_convmixer.data import datasets
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.data.unreadable import Unreadable
from keras_convmixer.recipes import Augmentation

NEEDED = 'HEIC images need pillow_heif: python -m pip install "keras_convmixer[heif]"'
KINDS = {".tif": "TIFF", ".TIFF": "TIFF", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF"}


@pytest.fixture
def photos(tmp_path):
    """Of two classes a photograph in each format, of which the second class's are white."""
    pillow_heif.register_heif_opener()
    for name, level in ("black", 0), ("white", 255):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, (suffix, kind) in enumerate(KINDS.items()):
            path = tmp_path / "photos" / name / f"{i}{suffix}"
            Image.new("RGB", (64, 48), (level, level, level)).save(path, kind)
    return tmp_path / "photos"


def test_they_are_trained_on_and_measured(photos, capsys):
    dataset = datasets.open_dataset(photos, validation_fraction=0.2)
    size, recipe = Preprocessing((8, 8), 1.0, "bilinear"), Augmentation(crop_scale=(0.5, 1.0))
    images = dataset.training()
    stream = training_batches(images, size, recipe, batch_size=8, seed=0, epochs=1, unreadable=Unreadable(images))
    ((pixels, labels),) = stream.as_numpy_iterator()
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(pixels.mean((1, 2, 3)), 255 * labels[:, 1], atol=3)
    ((pixels, indices),) = evaluation_batches(dataset.split("all"), size, 32).as_numpy_iterator()
    assert len(indices) == 2 * len(KINDS)
    np.testing.assert_allclose(pixels.mean((1, 2, 3)), 255 * dataset.split("all").labels, atol=3)


def test_an_archive_of_them_is_unpacked(photos):
    archive = photos.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.rglob("*.*")):
            file.write(path, path.relative_to(photos))
    assert len(datasets.open_dataset(archive).split("all")) == 2 * len(KINDS)


def test_without_its_extra_heic_is_named_with_what_it_takes(photos, bundle, monkeypatch, capsys, tmp_path):
    words = ["data", str(photos), "--recipe", "digits", "--no-timing", "--json"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        assert main(["train", "--recipe", "digits", "--data", str(photos), "--workdir", str(tmp_path / "run")]) == 1
        assert f"4 of 10 images cannot be read, more than 1% (black/3.heic: {NEEDED}" in capsys.readouterr().err
        assert main(words) == 0
        unreadable = json.loads(capsys.readouterr().out)["splits"]["train"]["unreadable"]
        assert [row["reason"] for row in unreadable] == [NEEDED] * 4
        assert main(["predict", str(bundle.path), str(photos / "black"), "--json"]) == 1
        errors = [row.get("error") for row in json.loads(capsys.readouterr().out)]
        assert errors == [None, None, None, NEEDED, NEEDED]
    # As soon as it is installed they are read, whatever was found out before.
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["unreadable"] == []
    assert main(["predict", str(bundle.path), str(photos)]) == 0
