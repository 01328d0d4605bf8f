"""The grids of benchmarks/ablations: each is one, and asks what it says."""

from pathlib import Path

import pytest

from keras_convmixer.cli.main import parser
from keras_convmixer.experiments.sweep import Grid
from keras_convmixer.recipes import Recipe
from keras_convmixer.training.build import build

GRIDS = sorted((Path(__file__).parents[2] / "benchmarks" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_has_runs_that_differ_and_a_command_in_its_header(path):
    recipes = Grid.load(path).recipes()
    assert len({recipe.to_yaml() for recipe in recipes.values()}) == len(recipes) > 1
    assert {recipe.training.epochs for recipe in recipes.values()} == {4}
    (command,) = [line for line in path.read_text(encoding="utf-8").splitlines() if "convmixer sweep" in line]
    assert parser().parse_args(command.split()[2:]).grid == f"benchmarks/ablations/{path.name}"


def test_each_augmentation_of_the_imagenet_recipe_is_left_out_once():
    recipes = Grid.load(next(path for path in GRIDS if path.stem == "augmentation")).recipes()
    whole = recipes.pop("all_of_them/seed0")
    differ = [set(recipe.changed_from(whole)) for recipe in recipes.values()]
    flat, imagenet, none = (r.flat() for r in (whole, Recipe.load("imagenet"), Recipe()))
    on = {
        f"augmentation.{name}"
        for name in ("crop_scale", "flip", "rand_augment", "mixup", "cutmix", "random_erasing")
    }
    assert all(imagenet[key] != none[key] and flat[key] != none[key] for key in on)
    assert {key for (key,) in filter(lambda keys: len(keys) == 1, map(tuple, differ))} == on


def test_deeper_and_wider_models_have_about_as_many_parameters():
    recipes = Grid.load(next(path for path in GRIDS if path.stem == "depth_and_width")).recipes()
    assert len(recipes) == 6
    models = [recipe.model for recipe in recipes.values() if recipe.seed == 0]
    counts = [build(model, map(str, range(10))).model.count_params() for model in models]
    assert max(counts) < 1.1 * min(counts)
