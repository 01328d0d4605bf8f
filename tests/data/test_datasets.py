import contextlib
import io
import os
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convmixer.data import datasets, decode, unreadable
from keras_convmixer.data.datasets import open_dataset


def jpeg(level):
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (level, level, level)).save(file, "JPEG")
    return file.getvalue()


def photos(root, count=4, classes=("cat", "dog"), splits=("",)):
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i}.jpg").write_bytes(jpeg(i))
    return root


def spoil(root, *names, content=b"<html>moved</html>"):
    for name in names:
        (root / name).write_bytes(content)


def all_bytes(images):
    return list(tf.data.Dataset.range(len(images)).map(images.encoded, 2).as_numpy_iterator())


def test_digits():
    data = open_dataset("digits")
    assert data.name == "digits"
    assert data.classes == tuple("0123456789")
    assert data.held_out_name == "validation"
    assert [len(data.splits[name]) for name in ("train", "validation", "all")] == [1438, 359, 1797]
    image = data.splits["all"]
    assert image.names[17] == "digits/17"
    assert image.labels[17] == 7
    pixels = decode.decode(image.encoded(tf.constant(17, tf.int64))).numpy()
    assert pixels.shape == (8, 8, 3)
    assert pixels.max() == 255
    assert set(data.training().names).isdisjoint(data.held_out().names)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images = open_dataset("digits").splits["all"].subset([0, 1000, 1796])
    for encoded, expected in zip(all_bytes(images), load_digits().images[[0, 1000, 1796]]):
        assert np.array_equal(decode.decode(encoded)[..., 0], np.round(expected * 255 / 16))


def test_the_split_is_stratified_and_follows_the_seed(tmp_path):
    photos(tmp_path, count=20)
    first, again, other = (open_dataset(tmp_path, validation_fraction=0.25, seed=seed) for seed in (1, 1, 2))
    assert np.bincount(first.held_out().labels).tolist() == [5, 5]
    assert first.held_out().names == again.held_out().names != other.held_out().names
    assert sorted(first.training().names + first.held_out().names) == list(first.splits["all"].names)


def test_images_come_with_their_names_labels_and_bytes(tmp_path):
    data = open_dataset(photos(tmp_path, splits=("train", "val")))
    images = data.held_out()
    assert data.name == tmp_path.name
    assert images.names[5] == "val/dog/1.jpg"
    assert images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert all_bytes(images) == [(tmp_path / name).read_bytes() for name in images.names]
    some = images.subset([6, 0])
    assert some.names == ("val/dog/2.jpg", "val/cat/0.jpg")
    assert some.labels.tolist() == [1, 0]
    assert all_bytes(some) == [jpeg(2), jpeg(0)]


def test_a_training_split_alone_is_divided(tmp_path):
    data = open_dataset(photos(tmp_path, splits=("train",)), validation_fraction=0.25)
    assert {name: len(images) for name, images in data.splits.items()} == {"train": 6, "all": 8, "validation": 2}


def test_the_splits_that_there_are_can_be_asked_for(tmp_path):
    data = open_dataset(photos(tmp_path, splits=("train", "test")))
    assert data.held_out_name == "test"
    assert len(data.split("test")) == 8
    with pytest.raises(ValueError, match="has no split 'val'; it has train, test"):
        data.split("val")


def test_a_test_set_alone_cannot_be_trained_on(tmp_path):
    data = open_dataset(photos(tmp_path, splits=("test",)))
    assert len(data.held_out()) == 8
    with pytest.raises(ValueError, match="has no split 'train'; it has test"):
        data.training()


def test_without_images_to_hold_out_it_says_so(tmp_path):
    data = open_dataset(photos(tmp_path, count=1))
    assert len(data.split("all")) == 2
    with pytest.raises(ValueError, match="has no images to hold out: it has train, all"):
        data.held_out()


def test_an_archive_is_named_and_opened_as_its_folder(tmp_path):
    photos(tmp_path / "pets", splits=("train", "val"))
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as file:
        file.add(tmp_path / "pets", "pets")
    data = open_dataset(tmp_path / "pets.tar.gz")
    assert data.name == "pets"
    assert all_bytes(data.held_out()) == all_bytes(open_dataset(tmp_path / "pets").held_out())


def test_corrupt_images_are_named_counted_and_left_out(tmp_path):
    photos(tmp_path, count=150)
    spoil(tmp_path, "cat/7.jpg")
    spoil(tmp_path, "dog/9.jpg", content=jpeg(9)[:100])
    spoil(tmp_path, "dog/8.jpg", content=b"")
    data = open_dataset(tmp_path)
    skipped = dict(data.training().skipped)
    assert list(skipped) == ["cat/7.jpg", "dog/8.jpg", "dog/9.jpg"]
    assert skipped["cat/7.jpg"] == "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"
    assert skipped["dog/8.jpg"] == "an empty file"
    assert "Invalid JPEG" in skipped["dog/9.jpg"]
    assert data.held_out().skipped == ()
    assert len(data.split("all")) == 297
    assert not set(skipped) & set(data.split("all").names)


def test_more_than_one_percent_corrupt_is_an_error_unless_allowed(tmp_path):
    photos(tmp_path, count=100)
    spoil(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    with pytest.raises(
        ValueError, match=r"3 of 200 images cannot be read.*cat/1.jpg: not a JPEG.*set data.allow_corrupt=true"
    ) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(open_dataset(tmp_path, allow_corrupt=True).split("all")) == 197


def test_a_class_without_a_readable_image_is_an_error_even_then(tmp_path):
    spoil(photos(tmp_path, count=2), "cat/0.jpg", "cat/1.jpg")
    with pytest.raises(ValueError, match="no image of class cat can be read"):
        open_dataset(tmp_path, allow_corrupt=True)


def test_nothing_readable_is_an_error_even_then(tmp_path):
    spoil(photos(tmp_path, count=1), "cat/0.jpg", "dog/0.jpg")
    with pytest.raises(ValueError, match="2 of 2 images cannot be read"):
        open_dataset(tmp_path, allow_corrupt=True)


def let_go(fifo):
    """Whoever waits for something to be written to a FIFO gets nothing, and goes on."""
    with contextlib.suppress(OSError):  # nobody waits
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_links_to_what_is_no_regular_file_are_named_and_left_out(tmp_path):
    root = photos(tmp_path / "photos", count=150)
    os.mkfifo(tmp_path / "fifo")
    (root / "cat" / "7.jpg").unlink()
    (root / "cat" / "7.jpg").symlink_to(tmp_path / "fifo")
    (root / "dog" / "9.jpg").unlink()
    (root / "dog" / "9.jpg").symlink_to(os.devnull)
    timers = [threading.Timer(seconds, let_go, [tmp_path / "fifo"]) for seconds in range(5, 60)]
    for timer in timers:
        timer.start()
    try:
        data = open_dataset(root)
        skipped = dict(data.training().skipped)
    finally:
        for timer in timers:
            timer.cancel()
    assert skipped == {"cat/7.jpg": "not a regular file", "dog/9.jpg": "not a regular file"}
    assert len(data.split("all")) == 298


def test_names_that_are_not_utf_8_are_read_and_can_be_printed(tmp_path):
    root = photos(tmp_path, count=150)
    broken = os.fsencode(root / "cat") + b"/caf\xe9.jpg"
    for name, content in ((broken, b"no image"), (os.fsencode(root / "dog") + b"/caf\xe9.jpg", jpeg(7))):
        with open(name, "wb") as file:
            file.write(content)
    data = open_dataset(root)
    assert dict(data.training().skipped) == {
        "cat/caf\\xe9.jpg": "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"
    }
    images = data.split("all")
    place = images.names.index("dog/caf\\xe9.jpg")
    assert images.encoded(tf.constant(place, tf.int64)).numpy() == jpeg(7)


def test_images_are_checked_once_and_again_when_one_changes(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(unreadable, "_decode_all", lambda root, names: checked.append(len(names)) or {})
    photos(tmp_path, count=3)
    open_dataset(tmp_path)
    open_dataset(tmp_path, seed=1)
    assert checked == [6]
    spoil(tmp_path, "cat/1.jpg")
    open_dataset(tmp_path)
    assert checked == [6, 6]


def test_only_the_splits_that_are_used_are_checked(tmp_path):
    photos(tmp_path, splits=("train", "test"))
    spoil(tmp_path, *(f"train/cat/{i}.jpg" for i in range(4)))
    data = open_dataset(tmp_path)
    assert len(data.split("test")) == 8
    with pytest.raises(ValueError, match=r"\(train\): 4 of 8 images cannot be read"):
        data.training()


def test_a_file_that_vanishes_later_is_not_found(tmp_path):
    images = open_dataset(photos(tmp_path)).split("all")
    (tmp_path / images.names[0]).unlink()
    with pytest.raises(tf.errors.NotFoundError):
        images.encoded(tf.constant(0, tf.int64))


@pytest.mark.parametrize(
    "source", ["no/such/folder/here", "./photos", "gone.tar.gz", "C:\\photos", "https://x.org/a"]
)
def test_a_missing_path(source):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_dataset(source)


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(jpeg(0))
    with pytest.raises(ValueError, match="expected a folder or an archive"):
        open_dataset(tmp_path / "photo.jpg")


def test_imagenet_samples_open_with_a_class_each(imagenet_samples):
    data = open_dataset(imagenet_samples)
    assert len(data.classes) == len(data.split("all")) == 250
    assert data.split("all").skipped == ()
    assert data.classes[0] == "n01440764"


@pytest.mark.slow
def test_cifar10_opens_within_a_minute_and_then_at_once(cifar10_archive):
    import time

    for limit in (60, 3):
        start = time.monotonic()
        data = datasets.open_dataset(cifar10_archive)
        assert (len(data.training()), len(data.held_out())) == (50_000, 10_000)
        assert time.monotonic() - start < limit
