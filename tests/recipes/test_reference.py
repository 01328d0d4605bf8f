"""Every key of a recipe is explained, in one place, and the page about them is what the command prints."""

import re
from pathlib import Path

import pytest

from keras_convmixer import Recipe
from keras_convmixer.errors import UserError
from keras_convmixer.recipes.reference import SECTIONS, reference

ROOT = Path(__file__).parent.parent.parent


def test_every_key_has_a_description():
    keys = reference().keys
    assert [key.name for key in keys] == list(Recipe().flat())
    assert [key.name for key in keys if not re.fullmatch(r"\S.{10,}\.", key.meaning)] == []
    assert all(cls.__doc__ for cls in SECTIONS.values())


@pytest.mark.parametrize(
    "name, kind, default",
    [
        ("seed", "0 <= integer < 2,147,483,648", "0"),
        ("data.validation_fraction", "0 < number < 1", "0.2"),
        ("model.dim", "integer >= 1 or null", "null"),
        ("model.interpolation", "nearest, bilinear, bicubic or null", "null"),
        ("model.input_size", "[1 <= integer <= 16,384, 1 <= integer <= 16,384] or null", "null"),
        ("augmentation.flip", "0 <= number <= 1 or alternating", "0.0"),
        ("optimizer.arguments", "mapping", "{}"),
        ("optimizer.clip_norm", "number > 0 or null", "null"),
        ("training.freeze_backbone", "true, false or auto", "false"),
        ("training.progressive_resizing", "list of [integer >= 1, integer >= 1]", "[]"),
        ("training.on_nan", "stop or rollback", "stop"),
    ],
)
def test_types_ranges_and_defaults(name, kind, default):
    (key,) = reference(name).keys
    assert (key.name, key.type, key.default) == (name, kind, default)


def test_a_section_has_its_own_keys_alone():
    assert {key.name.partition(".")[0] for key in reference("training").keys} == {"training"}
    assert len(reference("data").keys) == 3


@pytest.mark.parametrize(
    "name, hint",
    [
        ("trainig", "did you mean 'training'"),
        ("training.epoch", "did you mean 'training.epochs'"),
        ("zzz", "sections: data, model"),
        ("train", "did you mean 'training'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, hint):
    with pytest.raises(UserError, match=f"{name}: no section or key of a recipe; {hint}"):
        reference(name)


def test_modules_that_are_named_are_there():
    for key in reference().keys:
        for module in re.findall(r"`(keras_convmixer[\w.]+)`", key.meaning):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{key.name} names {module}"


def test_a_terminal_of_windows_can_show_it():
    reference().as_markdown().encode("cp1252")


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "recipe_keys.md").read_text(encoding="utf-8") == reference().as_markdown(), (
        "run: convmixer recipe keys --markdown > docs/recipe_keys.md"
    )
