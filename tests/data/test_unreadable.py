"""Images that go bad in use: replaced in training, left out in evaluation, always named and counted."""

import dataclasses
import io
import os

import numpy as np
import pytest
from PIL import Image

from keras_convmixer import Preprocessing
from keras_convmixer.data.datasets import open_dataset
from keras_convmixer.data.encoded_images import from_files, in_memory
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.data.unreadable import Unreadable, stream_in_use
from keras_convmixer.recipes import Augmentation

PREPROCESSING = Preprocessing((8, 8), 1.0, "bilinear")
PLAIN = Augmentation()
COUNT = 40


def encoded(level, kind="PNG", mode="RGB", **options):
    image = Image.new("RGB", (8, 8), (level, level, level)).convert(mode)
    return saved(image, kind, **options)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photos(bad=()):
    """Image i is grey of level i; those in the dictionary `bad` hold other bytes."""
    held = [bad.get(i, encoded(i)) if bad else encoded(i) for i in range(COUNT)]
    return in_memory(("a", "b"), np.arange(COUNT) % 2, [f"{i}.png" for i in range(COUNT)], held)


def batches(images, recipe=PLAIN, batch_size=10, epochs=2, **arguments):
    stream = training_batches(
        images, PREPROCESSING, recipe, batch_size=batch_size, seed=3, epochs=epochs, **arguments
    )
    return [tuple(part) for part in stream.as_numpy_iterator()]


def levels(stream):
    return np.concatenate([images[:, 0, 0, 0] for images, _ in stream]).astype(int)


UNREADABLE = {
    "truncated JPEG": (encoded(9, "JPEG")[:300], "Invalid JPEG"),
    "HTML": (b"<!DOCTYPE html><html></html>", "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"),
    "WebP without an image": (b"RIFF\x20\0\0\0WEBPVP8 \x14\0\0\0" + bytes(20), "Invalid image: could not"),
    "zero bytes": (b"", "an empty file"),
    "huge PNG": (saved(Image.new("1", (20_000, 20_000)), "PNG"), "an image of more than"),
}


CROPPED = Augmentation(crop_scale=(0.3, 1.0), flip=0.5, mixup=0.5)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("truncated JPEG", CROPPED),
        *((name, PLAIN) for name in UNREADABLE),
        *(pytest.param(name, CROPPED, marks=pytest.mark.slow) for name in UNREADABLE if name != "truncated JPEG"),
    ],
)
def test_another_image_stands_in_and_the_rest_stays_where_it_was(name, recipe, capsys):
    content, why = UNREADABLE[name]
    whole = batches(photos(), recipe)
    images = photos({7: content})
    unreadable = Unreadable(images)
    found = batches(images, recipe, unreadable=unreadable)
    assert [unreadable.count(epoch) for epoch in range(2)] == [1, 1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot be read: 7.png: {why}")
    changed = [not np.array_equal(a, b) for a, b in zip(found, whole, strict=True) for a, b in zip(a[0], b[0])]
    # One place an epoch; mixed, it shows in its partner too.
    assert sum(changed) <= (4 if recipe.mixup else 2)
    assert all(images.shape == (10, 8, 8, 3) for images, _ in found)
    if recipe is PLAIN:
        np.testing.assert_array_equal(np.flatnonzero(changed), np.flatnonzero(levels(whole) == 7))
        labels = np.concatenate([labels for _, labels in found]).argmax(axis=1)
        np.testing.assert_array_equal(labels, levels(found) % 2)


def test_who_stands_in_depends_on_seed_epoch_and_image_alone():
    images = photos({3: b"", 4: b"", 20: b"x"})
    first, second = batches(images), batches(images)
    np.testing.assert_array_equal(levels(first), levels(second))
    np.testing.assert_array_equal(levels(first[4:]), levels(batches(images, first_epoch=1)))
    np.testing.assert_array_equal(levels(first), levels(batches(images, batch_size=20)))
    assert not {3, 4, 20} & set(levels(first))


@pytest.mark.parametrize(
    "content",
    [
        encoded(60, "JPEG", "CMYK"),
        saved(Image.fromarray(np.full((8, 8), 60_000, np.uint16)), "PNG"),
        encoded(60, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    ],
    ids=["CMYK", "16 bits", "animated GIF"],
)
def test_unusual_images_are_read(content, capsys):
    images = photos({5: content})
    unreadable = Unreadable(images)
    batches(images, epochs=1, unreadable=unreadable)
    assert unreadable.count(0) == 0
    assert capsys.readouterr().err == ""


def files(folder):
    for i in range(COUNT):
        (folder / f"{i}.png").write_bytes(encoded(i))
    return from_files(("a", "b"), np.arange(COUNT) % 2, [f"{i}.png" for i in range(COUNT)], folder)


def test_a_file_that_vanishes_during_the_epoch_is_counted_from_then_on(tmp_path, capsys):
    images = files(tmp_path)
    unreadable = Unreadable(images)
    stream = training_batches(
        images, PREPROCESSING, PLAIN, batch_size=10, seed=3, epochs=3, unreadable=unreadable
    ).as_numpy_iterator()
    first = [next(stream) for _ in range(4)]
    (tmp_path / "7.png").unlink()
    rest = list(stream)
    assert sorted(levels(first)) == list(range(COUNT))
    assert len(rest) == 8
    assert unreadable.count(2) == 1
    assert 7 not in levels(rest[4:])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cannot be read: 7.png: ")
    assert "No such file" in line


def test_what_can_be_read_again_is_not_left_out_for_ever(tmp_path):
    """As after a chmod: neither size nor time of change tell of it."""
    for name in "ab":
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.png").write_bytes(encoded(9))
    path = tmp_path / "a" / "0.png"
    changed = path.stat().st_mtime_ns
    path.write_bytes(bytes(len(encoded(9))))
    os.utime(path, ns=(changed, changed))
    for _ in range(2):
        assert open_dataset(tmp_path, allow_corrupt=True).split("all").skipped[0][0] == "a/0.png"
    path.write_bytes(encoded(9))
    os.utime(path, ns=(changed, changed))
    assert open_dataset(tmp_path).split("all").skipped == ()


def test_where_all_images_are_gone_the_stream_ends_with_an_os_error(tmp_path):
    images = files(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(OSError, match="images in a row cannot be read: is the data still there"), stream_in_use():
        batches(images)


def test_evaluation_leaves_out_what_cannot_be_read():
    images = photos({0: b"", 7: b"<html>", 39: b"x"})
    pixels, indices = zip(*evaluation_batches(images, PREPROCESSING, 10).as_numpy_iterator())
    assert [len(batch) for batch in pixels] == [10, 10, 10, 7]
    indices = np.concatenate(indices)
    assert set(range(COUNT)) - set(indices.tolist()) == {0, 7, 39}
    np.testing.assert_array_equal(np.concatenate(pixels)[:, 0, 0, 0], indices)


def test_a_name_does_not_steer_the_terminal_that_shows_it(capsys):
    images = in_memory(("a", "b"), [0, 1], ["0", "1"], [encoded(0), encoded(1)])
    Unreadable(dataclasses.replace(images, skipped=(("\x1b[2Jc\n.png", "empty"),)))
    assert capsys.readouterr().err == "cannot be read: \\x1b[2Jc\\n.png: empty\n"
