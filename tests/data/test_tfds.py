import csv
import io
import json
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_convmixer
from keras_convmixer import Preprocessing, Recipe
from keras_convmixer.data import decode
from keras_convmixer.data import tfds as sources
from keras_convmixer.data.datasets import open_dataset
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.recipes import Augmentation


def image(i):
    return np.full((6, 5, 3), 10 * i, np.uint8)


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """Eleven training and four test images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "photo": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "kind": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(11)), "test": self._generate_examples(range(11, 15))}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield i, {"id": str(i), "photo": image(i), "kind": i % 3}


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """No images at all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "no"}


class TinyByHand(TinyPhotos):
    """One that has to be downloaded by hand."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask the owner\nfor photos.zip."


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinyPhotos(data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture(autouse=True)
def tfds_data_dir(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


def pixels(images):
    """The single colour of each image, in one parallel pass."""
    decoded = tf.data.Dataset.range(len(images)).map(lambda i: decode.decode(images.encoded(i)), 2)
    return [int(pixels[0, 0, 0]) for pixels in decoded.as_numpy_iterator()]


def test_a_data_set_is_opened_by_its_name():
    data = open_dataset("tiny_photos")
    assert data.name == "tiny_photos"
    assert data.classes == ("cat", "dog", "owl")
    assert data.held_out_name == "test"
    images = data.training()
    assert images.names[3] == "tiny_photos/train/3"
    assert sorted(pixels(images)) == [10 * i for i in range(11)]
    assert [color // 10 % 3 for color in pixels(images)] == images.labels.tolist()
    assert len(data.held_out()) == 4


def test_a_version_may_be_named():
    assert len(open_dataset("tiny_photos:1.0.0").training()) == 11


def test_read_from_the_record_files_it_is_the_same_in_the_same_order():
    classes, in_memory = sources.open_splits("tiny_photos")
    for _ in range(2):  # the second time from the cached index
        _, on_disk = sources.open_splits("tiny_photos", most_in_memory=0)
        for split in ("train", "test"):
            held, read = in_memory[split](), on_disk[split]()
            assert read.labels.tolist() == held.labels.tolist()
            assert read.names == held.names
            for i in range(len(held)):
                assert read.encoded(tf.constant(i, tf.int64)) == held.encoded(tf.constant(i, tf.int64))


def test_a_mocked_data_set(data_dir):
    with tfds.testing.mock_data(num_examples=9, data_dir=str(data_dir)):
        images = open_dataset("tiny_photos").training()
        assert len(images) == 9
        assert decode.decode(images.encoded(tf.constant(8, tf.int64))).shape[-1] == 3


@pytest.mark.parametrize("name, nearest", [("cifar1O", "cifar10"), ("imagenet2021", "imagenet2012")])
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"{name}: neither a path nor .*; did you mean '{nearest}'") as caught:
        open_dataset(name)
    assert "\n" not in str(caught.value)


def test_what_is_not_for_classification_is_refused():
    with pytest.raises(ValueError, match="tiny_texts has 0 Image features among text; expected a classification"):
        open_dataset("tiny_texts")


def test_imagenet_says_which_files_belong_where(data_dir):
    with pytest.raises(
        FileNotFoundError, match=r"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar not found in"
    ):
        open_dataset("imagenet2012")
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(
        FileNotFoundError, match=r"imagenet2012: ILSVRC2012_img_val.tar not found in .*manual"
    ) as caught:
        open_dataset("imagenet2012")
    assert "\n" not in str(caught.value)
    assert "image-net.org" in str(caught.value)


def test_others_to_be_downloaded_by_hand_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"by hand into .*manual: Ask the owner for photos.zip."):
        open_dataset("tiny_by_hand")


def test_a_failed_download_is_an_os_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("the server has gone away\nTry later")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(TinyPhotos, "_split_generators", refuse)
    with pytest.raises(
        OSError, match=r"tiny_photos could not be prepared: RuntimeError: the server has gone away$"
    ):
        open_dataset("tiny_photos")


def jpeg(level):
    return tf.io.encode_jpeg(np.full((8, 9, 3), level, np.uint8)).numpy()


def write_tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def test_a_miniature_imagenet_is_prepared_from_the_original_archives(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    wnids = ("n01440764", "n02510455")
    for wnid in wnids:
        write_tar(tmp_path / f"{wnid}.tar", {f"{wnid}_{i}.JPEG": jpeg(50 * i) for i in range(3)})
    write_tar(
        manual / "ILSVRC2012_img_train.tar", {f"{w}.tar": (tmp_path / f"{w}.tar").read_bytes() for w in wnids}
    )
    write_tar(manual / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(i) for i in (1, 2)})
    data = open_dataset("imagenet2012")
    assert len(data.classes) == 1000
    assert data.held_out_name == "validation"
    assert sorted(data.classes[label] for label in data.training().labels) == sorted(wnids * 3)
    assert len(data.held_out()) == 2
    assert sorted(pixels(data.training())) == sorted([0, 50, 100] * 2)


BROKEN = (jpeg(9)[:200], b"<html></html>", b"", b"no", b"\xff\xd8\xff")


def miniature_imagenet(folder, each=12, wnids=("n01440764", "n02510455")):
    """ILSVRC's own archives, with five corrupt images among the training ones."""
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    inner = {}
    for number, wnid in enumerate(wnids):
        members = {f"{wnid}_{i}.JPEG": jpeg(20 * i + number) for i in range(each)}
        if number == 0:
            members |= dict(zip(members, BROKEN))
        write_tar(folder / "inner.tar", members)
        inner[f"{wnid}.tar"] = (folder / "inner.tar").read_bytes()
    write_tar(manual / "ILSVRC2012_img_train.tar", inner)
    members = {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(i) for i in range(1, 5)}
    write_tar(manual / "ILSVRC2012_img_val.tar", members | {"ILSVRC2012_val_00000005.JPEG": b"<html></html>"})


def test_an_epoch_over_a_miniature_imagenet_reports_its_corrupt_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    miniature_imagenet(tmp_path)
    recipe = Recipe.load(
        "imagenet",
        [
            *("model.variant=convmixer_tiny", "training.epochs=1", "training.batch_size=24"),
            *("augmentation.mix_group=8", "training.precision=float32"),
        ],
    )
    keras_convmixer.train(recipe, tmp_path / "run", verbose=0)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cannot be read: ")]
    assert len(lines) == 6
    assert sum("imagenet2012/train/n01440764_" in line for line in lines) == 5
    assert sum("imagenet2012/validation/ILSVRC2012_val_00000005.JPEG: not a JPEG" in line for line in lines) == 1
    (row,) = csv.DictReader((tmp_path / "run" / "history.csv").open())
    assert (float(row["unreadable"]), float(row["val_unreadable"])) == (5, 1)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["images"], metrics["skipped"]) == (4, 1)
    with pytest.raises(ValueError, match=r"imagenet2012 \(validation\): 1 of 5 images cannot be read"):
        keras_convmixer.evaluate(tmp_path / "run")
    assert len(keras_convmixer.evaluate(tmp_path / "run", allow_corrupt=True).labels) == 4


def test_a_mocked_imagenet_gives_training_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    miniature_imagenet(tmp_path)
    open_dataset("imagenet2012")
    with tfds.testing.mock_data(num_examples=9, data_dir=str(tmp_path)):
        images = open_dataset("imagenet2012").training()
        assert len(images.classes) == 1000
        stream = training_batches(
            images, Preprocessing((16, 16)), Augmentation(crop_scale=(0.5, 1)), batch_size=4, seed=0, epochs=1
        )
        (pixels, labels), _ = stream.as_numpy_iterator()
        assert pixels.shape == (4, 16, 16, 3)
        assert labels.shape == (4, 1000)
