"""Whatever lies in a folder: an image is used, anything else named in a line, soon, and nothing is left behind."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import keras_convmixer
from keras_convmixer import bundles
from keras_convmixer.data.datasets import open_dataset
from keras_convmixer.errors import UserError

# As the system has them: any bytes but 0 and the slash; most as text, some not UTF-8.
NAMES = st.one_of(
    st.binary(min_size=1, max_size=30).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"_")),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).map(str.encode),
    st.sampled_from([b"a\nb", b"\x1b[2J", "\u2028".encode(), b"-rf", b"$(x)", b"%s", "犬".encode(), b"CON"]),
).map(lambda name: os.fsdecode(name[:60] + b".png"))
JUNK = st.one_of(
    st.binary(max_size=200), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"])
)


def make_fifo(path, room):
    os.mkfifo(path)


def make_link_to_fifo(path, room):
    there = room / f"fifo {len(os.listdir(room))}"
    os.mkfifo(there)
    path.symlink_to(there)


def make_sparse(path, room):
    with path.open("wb") as file:
        file.truncate(3 << 30)


WITHOUT_CONTENT = {
    "fifo": make_fifo,
    "link to a fifo": make_link_to_fifo,
    "endless device": lambda path, room: path.symlink_to("/dev/zero"),
    "empty device": lambda path, room: path.symlink_to(os.devnull),
    "link to nowhere": lambda path, room: path.symlink_to(room / "nowhere"),
    "ring": lambda path, room: path.symlink_to(path),
    "link to a folder": lambda path, room: path.symlink_to(room),
    "folder": lambda path, room: path.mkdir(),
    "3 GiB of nothing": make_sparse,
}
OTHERS = st.dictionaries(NAMES, st.one_of(JUNK, st.sampled_from(list(WITHOUT_CONTENT))), max_size=6)


@pytest.fixture(scope="module")
def bundle():
    model = keras_convmixer.ConvMixer(4, 1, 3, 2, input_shape=(8, 8, 3), num_classes=2, classifier_activation=None)
    return keras_convmixer.Bundle(model, keras_convmixer.Preprocessing((8, 8)), ("cat", "dog"))


def fill(room, others):
    """Two classes with three images each, and the others among the second's."""
    for kind in ("cat", "dog"):
        (room / "photos" / kind).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 8), (i, 0, 0)).save(room / "photos" / kind / f"good {i}.png")
    for name, what in others.items():
        path = room / "photos" / "dog" / name
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            WITHOUT_CONTENT[what](path, room)
    return room / "photos"


def one_visible_line(text):
    return text.isprintable()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(others=OTHERS)
def test_a_folder_with_anything_in_it(bundle, own_cache, others):
    room = Path(tempfile.mkdtemp())
    try:
        photos, began = fill(room, others), time.monotonic()
        images = open_dataset(photos, allow_corrupt=True).split("all")
        good = [name for name in images.names if "/good " in name]
        assert len(good) == 6
        assert set(images.names) - set(good) <= {f"dog/{name}" for name in others}
        assert all(one_visible_line(why) for _, why in images.skipped)

        found = {os.path.basename(one.path): one for one in keras_convmixer.predict(bundle, [photos])}
        assert {name for name in found if name.startswith("good ")} == {"good 0.png", "good 1.png", "good 2.png"}
        for one in found.values():
            assert bool(one.classes) != bool(one.error)
            assert one.error is None or one_visible_line(one.error)
        assert not list(photos.rglob(".writing-*"))
        assert time.monotonic() - began < 60  # and not for ever: a busy machine takes its time
    finally:
        shutil.rmtree(room)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["input_size", "crop", "interpolation", "mean", "std"]) | st.text(max_size=8)


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    bundles.save(bundle, path)
    return path


def told_in_a_line(read):
    began, said = time.monotonic(), ""
    try:
        read()
    except (UserError, OSError) as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    assert time.monotonic() - began < 60  # and not for ever: a busy machine takes its time


@settings(max_examples=40)
@given(values=st.dictionaries(KEYS, VALUES, max_size=4) | VALUES)
def test_any_json_for_a_preprocessing(folder, values):
    text = json.dumps(values)
    (folder / "preprocessing.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    told_in_a_line(lambda: keras_convmixer.Preprocessing.read(folder / "preprocessing.json"))


@settings(max_examples=15)
@given(
    preprocessing=st.dictionaries(KEYS, VALUES, max_size=2).map(lambda values: json.dumps(values).encode()),
    classes=st.binary(max_size=40)
    | st.lists(st.text(max_size=8), max_size=4)
    .map("\n".join)
    .map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_any_files_in_a_models_folder(folder, preprocessing, classes):
    (folder / "preprocessing.json").write_bytes(preprocessing)
    (folder / "classes.txt").write_bytes(classes)
    told_in_a_line(lambda: keras_convmixer.load(folder))


def test_folders_in_folders_without_end(tmp_path):
    fill(tmp_path, {})
    here = os.getcwd()
    os.chdir(tmp_path / "photos" / "dog")
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    told_in_a_line(lambda: open_dataset(tmp_path / "photos"))
    subprocess.run(["rm", "-rf", tmp_path / "photos"], check=True)  # too deep for Python's rmtree
