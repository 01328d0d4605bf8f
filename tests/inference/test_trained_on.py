"""What a model has learned from is known by content: not by where a folder lies or how its path is spelled."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.data.datasets import open_dataset

CLASSES, OF_EACH = 4, 10


def write_photo(folder, name, rng):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")


def recipe_for(source, **model):
    return Recipe.load(
        "digits",
        {
            "data": {"source": str(source), "validation_fraction": 0.2},
            "model": {"dim": 8, "depth": 1} | model,
            "training": {"epochs": 1, "batch_size": 8},
        },
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on `photos/`, of which it holds out 8 of 40."""
    room, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    for number in range(CLASSES):
        for i in range(OF_EACH):
            write_photo(room / "photos" / f"class {number}", i, rng)
    keras_convmixer.train(recipe_for(room / "photos"), room / "run", verbose=0)
    return room


@pytest.fixture
def room(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "room")


def judged(run, data=None, **options):
    return keras_convmixer.evaluate(run, data, verbose=0, **options)


def test_by_default_it_is_judged_by_what_was_held_out(trained):
    found, noted = judged(trained / "run"), json.loads((trained / "run" / "metrics.json").read_text())
    assert (found.split, len(found.labels), found.trained_on) == ("validation", 8, 0)
    assert noted["images"] == 8
    assert found.top(1) == noted["top1"]


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../photos", "{}/."])
def test_a_folder_is_the_same_however_its_path_is_spelled(trained, spelling):
    found = judged(trained / "run", spelling.format(trained / "photos"))
    np.testing.assert_array_equal(found.logits, judged(trained / "run").logits)
    assert (found.split, found.trained_on) == ("validation", 0)


def test_photographs_that_moved_are_the_same_photographs(room):
    own = judged(room / "run")
    (room / "photos").rename(room / "moved")
    for place in (room / "moved").glob("*/3.png"):
        place.rename(place.with_name("another name.png"))
    found = judged(room / "run", room / "moved")
    assert (found.split, len(found.labels), found.trained_on) == ("validation", 8, 0)
    assert sorted(found.logits.ravel()) == pytest.approx(sorted(own.logits.ravel()), abs=1e-5)


def test_so_they_are_in_an_archive(room):
    shutil.make_archive(room / "packed", "zip", room, "photos")
    assert len(judged(room / "run", room / "packed.zip").labels) == 8


def test_new_photographs_are_judged_with_those_held_out(room):
    for i in range(5):
        write_photo(room / "photos" / "class 1", f"new{i}", np.random.default_rng(i + 1))
    found = judged(room / "run", room / "photos")
    assert (found.split, len(found.labels), found.trained_on) == ("validation", 13, 0)


def test_of_other_photographs_all_are_judged(room):
    rng = np.random.default_rng(1)
    for name in ("class 0", "class 3"):
        for i in range(3):
            write_photo(room / "others" / name, i, rng)
    found = judged(room / "run", room / "others")
    assert (found.split, len(found.labels), found.trained_on) == ("all", 6, 0)


def test_images_that_it_learned_from_are_counted(room):
    found = judged(room / "run", room / "photos", split="train")
    assert (len(found.labels), found.trained_on) == (32, 32)
    assert "learned from 32 of them" in found.as_table()
    assert json.loads(found.as_json())["trained_on"] == 32
    found = judged(room / "run", room / "photos", split="all")
    assert (len(found.labels), found.trained_on) == (40, 32)
    assert "learned from" not in judged(room / "run").as_table()


def test_they_are_counted_in_splits_of_ones_own(room):
    """A test folder that holds a training image, under another name."""
    rng = np.random.default_rng(2)
    for name in ("class 0", "class 1"):
        write_photo(room / "others" / "train" / name, 0, rng)
        write_photo(room / "others" / "test" / name, 1, rng)
    for place in sorted((room / "photos" / "class 1").iterdir()):
        shutil.copy(place, room / "others" / "test" / "class 1" / f"copy of {place.name}")
    found = judged(room / "run", room / "others")
    assert (found.split, len(found.labels), found.trained_on) == ("test", 12, 8)


def test_where_all_were_learned_from_all_are_judged_and_it_is_said(room):
    """As one who deletes what was held out."""
    for name in open_dataset(room / "photos", validation_fraction=0.2, seed=0).split("validation").names:
        (room / "photos" / name).unlink()
    found = judged(room / "run", room / "photos")
    assert (found.split, len(found.labels), found.trained_on) == ("all", 32, 32)


def test_what_first_weights_have_seen_counts_too(room):
    rng = np.random.default_rng(3)
    for name in ("class 0", "class 1"):
        for i in range(10):
            write_photo(room / "more" / name, i, rng)
    recipe = recipe_for(room / "more", weights=str(room / "run"))
    keras_convmixer.train(recipe, room / "finetuned", verbose=0)
    shutil.rmtree(room / "photos" / "class 2")
    shutil.rmtree(room / "photos" / "class 3")
    assert judged(room / "finetuned", room / "photos", split="all").trained_on == 16


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00v\x00{'descr': '<u8', 'shape': (10**15,)}"])
def test_a_damaged_list_is_one_line(room, content):
    (room / "run" / "training_images.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"training_images\.npy is not a list of fingerprints") as error:
        judged(room / "run")
    assert "\n" not in str(error.value)


def test_runs_that_noted_nothing_hold_out_what_their_recipe_says(trained, room):
    (room / "run" / "training_images.npy").unlink()
    assert len(judged(room / "run").labels) == 8
    assert len(judged(room / "run", f"{trained / 'photos'}/").labels) == 8
    found = judged(room / "run", room / "photos")
    assert (found.split, len(found.labels), found.trained_on) == ("all", 40, None)
