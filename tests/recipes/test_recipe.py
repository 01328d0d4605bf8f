import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer import Recipe
from keras_convmixer.recipes import Training, list_recipes


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_of_the_package_round_trip(name, written):
    recipe = Recipe.load(name)
    assert Recipe.load(written(recipe.to_yaml())) == recipe


def test_the_four_recipes():
    assert list_recipes() == ["cifar10", "digits", "finetune", "imagenet"]


def test_imagenet_is_the_authors_recipe():
    recipe = Recipe.load("imagenet")
    optimizer, training, augmentation = recipe.optimizer, recipe.training, recipe.augmentation
    assert (training.epochs, training.batch_size, training.ema) == (150, 640, None)
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.epsilon) == (0.01, 2e-5, 1e-3)
    assert (optimizer.clip_norm, optimizer.decay) == (1.0, "kernels")
    assert (augmentation.mixup, augmentation.cutmix, training.label_smoothing) == (0.5, 0.5, 0.1)
    assert (augmentation.rand_augment, augmentation.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)


def test_reads_numbers_as_people_write_them(written):
    # YAML 1.1 reads 1e-3, which has no dot, as a string.
    recipe = Recipe.load(written("optimizer: {learning_rate: 1e-3}\ntraining: {epochs: '5'}\n"))
    assert (recipe.optimizer.learning_rate, recipe.training.epochs) == (0.001, 5)


@given(epochs=st.integers(1, 1000), rate=st.floats(0, 10), ema=st.none() | st.floats(0.1, 0.999))
def test_overrides_win(epochs, rate, ema):
    overrides = [f"training.epochs={epochs}", f"optimizer.learning_rate={rate!r}"]
    overrides += [] if ema is None else [f"training.ema={ema!r}"]
    recipe = Recipe.load("digits", overrides)
    assert (recipe.training.epochs, recipe.optimizer.learning_rate, recipe.training.ema) == (epochs, rate, ema)


def test_an_override_may_name_an_empty_section(written):
    assert Recipe.load(written("training:\n"), ["training.epochs=3"]).training.epochs == 3


@pytest.mark.parametrize(
    "text,message",
    [
        (
            "optimizer: {learning_rat: 1}",
            "unknown key 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'",
        ),
        ("optimiser: {}", "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("zzz: 1", "unknown key 'zzz'; known: seed, data"),
        ("training: {epochs: many}", "training.epochs: .* got 'many'"),
        ("training: {epochs: 0}", "training.epochs: .* greater than or equal to 1, got 0"),
        ("model: {crop: 0.005}", "model.crop: .* greater than or equal to 0.01, got 0.005"),
        ("model: {input_size: [20000, 32]}", "input_size: .* less than or equal to 16384, got 20000"),
        ("training: {precision: fp8}", "training.precision: .*'mixed_bfloat16'"),
        ("optimizer: {layer_decay: 0}", "optimizer.layer_decay: .* greater than 0, got 0"),
        ("optimizer: {layer_decay: 1.5}", "optimizer.layer_decay: .* less than or equal to 1, got 1.5"),
        ("augmentation: {crop_scale: [0.9, 0.2]}", "crop_scale: input should be from the least to the most, got"),
        ("augmentation: {crop_scale: [-1, 3]}", "crop_scale: input should be greater than 0, got -1"),
        ("augmentation: {crop_ratio: [0, 1]}", "crop_ratio: input should be greater than 0, got 0"),
        ("optimizer: {learning_rate: .inf}", "learning_rate: input should be a finite number, got inf"),
        ("training: 5", "training: .* got 5"),
        ("model: {input_size: [32]}", "model.input_size"),
        ("- a list", "must hold sections"),
        ("", "must hold sections"),
        ("a: [", "is not YAML"),
        (
            "training:\n  epochs: 9\nseed: 1\ntraining:\n  batch_size: 2\n",
            "is not YAML: the key 'training' is given twice, in lines 1 and 4",
        ),
        ("training: {epochs: 9, epochs: 8}", "the key 'epochs' is given twice, in lines 1 and 1"),
        ("!!python/object/apply:os.system ['touch pwned']", "is not YAML"),
    ],
)
def test_refuses_what_it_does_not_know(written, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        Recipe.load(written(text))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("key", ["seed", "base", "model.mean", "optimizer.arguments"])
def test_a_few_lines_that_stand_for_billions_are_soon_refused(written, key):
    inner = [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(12)]
    text = "{" + key.replace(".", ": {") + ": {all: [" + ", ".join(inner) + "]}}" + "}" * key.count(".")
    began = time.monotonic()
    with pytest.raises(ValueError, match="is not YAML: it has more than 10,000 values") as caught:
        Recipe.load(written(text))
    assert len(str(caught.value)) < 500
    assert time.monotonic() - began < 5


def test_a_long_value_is_not_repeated_in_full(written):
    with pytest.raises(ValueError, match=r"seed: .* got \[") as caught:
        Recipe.load(written(f"seed: {[1] * 9000}"))
    assert len(str(caught.value)) < 500


def test_references_that_are_few_are_read(written):
    text = "model: {mean: &half [0.5, 0.5, 0.5], std: *half}"
    assert Recipe.load(written(text)).model.std == (0.5, 0.5, 0.5)
    text = "model: &own {dim: 8}\noptimizer: {arguments: {<<: *own, dim: 9}}"  # what is merged is not given twice
    assert Recipe.load(written(text)).optimizer.arguments == {"dim": 9}


@pytest.mark.parametrize(
    "override,message",
    [
        ("training.epoch=5", "did you mean 'training.epochs'"),
        ("trainig.epochs=5", "did you mean 'training'"),
        ("training.epochs", "expected KEY=VALUE"),
        ("seed.x=1", "'seed' is not a section"),
        ("seed=[", "is not a YAML value"),
    ],
)
def test_refuses_wrong_overrides(override, message):
    with pytest.raises(ValueError, match=message):
        Recipe.load("digits", [override])


def test_a_missing_recipe_names_those_there_are():
    with pytest.raises(FileNotFoundError, match="cifar10, digits, finetune, imagenet"):
        Recipe.load("cifar11")


def test_differences_name_the_keys():
    recipe = Recipe.load("digits")
    other = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=3))
    assert recipe.differences(other) == [f"training.epochs: {recipe.training.epochs} here, 3 there"]
    assert recipe.differences(recipe) == []


def test_a_recipe_inherits_from_its_base(written, tmp_path):
    written("base: cifar10\noptimizer: {weight_decay: 0.1}\ntraining: {epochs: 7}\n")
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "other.yaml"
    path.write_text("base: ../mine.yaml\ntraining: {epochs: 9}\n")
    recipe, cifar10 = Recipe.load(path), Recipe.load("cifar10")
    assert (recipe.training.epochs, recipe.optimizer.weight_decay) == (9, 0.1)
    assert recipe.differences(cifar10) == [
        "optimizer.weight_decay: 0.1 here, 0.005 there",
        "training.epochs: 9 here, 25 there",
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("base: mine.yaml\n", "more than 10 recipes, each the base of the one before"),
        ("base: nowhere.yaml\n", "no such recipe"),
        ("base: [a]\n", "base must be a recipe's name or path"),
    ],
)
def test_refuses_bases_that_lead_nowhere(written, text, message):
    with pytest.raises((ValueError, OSError), match=message):
        Recipe.load(written(text))


def test_overrides_may_be_dictionaries():
    nested = {"training": {"epochs": 1}, "optimizer": {"learning_rate": 0.5}}
    strings = ["training.epochs=1", "optimizer.learning_rate=0.5"]
    assert Recipe.load("digits", nested) == Recipe.load("digits", strings)
    with pytest.raises(ValueError, match=r"did you mean 'training.epochs'"):
        Recipe.load("digits", {"training": {"epoch": 1}})


def test_what_is_made_by_hand_is_checked_as_what_is_read():
    made = Recipe(training=Training(epochs="3"), optimizer={"learning_rate": 0.1})
    assert (made.training.epochs, made.optimizer.learning_rate) == (3, 0.1)
    with pytest.raises(ValueError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        Training(epoch=3)
    with pytest.raises(ValueError, match=r"epochs: .* greater than or equal to 1, got 0"):
        Training(epochs=0)
    with pytest.raises(ValueError, match=r"unknown key 'optimizer.name_'"):
        Recipe(optimizer={"name_": "sgd"})
    with pytest.raises(ValueError, match="precision"):
        dataclasses.replace(Training(), precision="fp8")
