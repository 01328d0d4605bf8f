"""What a recipe's optimizer section makes of the optimizer and its learning rate."""

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer.training.compiled import compiled

STEPS = 10


@pytest.fixture
def optimizer(small_recipe):
    model = keras_convmixer.ConvMixer(8, 1, 3, 1, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    return lambda *overrides: compiled(small_recipe("training.epochs=4", *overrides), model, STEPS).optimizer


def rates(optimizer):
    found = []
    for step in range(4 * STEPS):
        optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return np.array(found)


def test_cosine_rises_over_the_warm_up_and_falls_to_zero(optimizer):
    found = rates(
        optimizer("optimizer.schedule=cosine", "optimizer.warmup_epochs=1", "optimizer.learning_rate=0.5")
    )
    np.testing.assert_allclose(found[:STEPS], 0.5 * np.arange(STEPS) / STEPS, atol=1e-6)
    falling = 0.25 * (1 + np.cos(np.pi * np.arange(3 * STEPS) / (3 * STEPS)))
    np.testing.assert_allclose(found[STEPS:], falling, atol=1e-6)
    alone = rates(optimizer("optimizer.schedule=cosine", "optimizer.learning_rate=0.5"))
    np.testing.assert_allclose(alone, 0.25 * (1 + np.cos(np.pi * np.arange(4 * STEPS) / (4 * STEPS))), atol=1e-6)


def test_constant_stays(optimizer):
    found = rates(optimizer("optimizer.schedule=constant", "optimizer.learning_rate=0.5"))
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)
    found = rates(
        optimizer("optimizer.schedule=constant", "optimizer.warmup_epochs=2", "optimizer.learning_rate=0.5")
    )
    np.testing.assert_allclose(found, 0.5 * np.minimum(np.arange(4 * STEPS) / (2 * STEPS), 1), atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "Lion", "rmsprop"])
def test_kerass_optimizers_go_by_their_names(optimizer, name):
    made = optimizer(f"optimizer.name={name}", "optimizer.weight_decay=0.3", "optimizer.clip_norm=2.0")
    assert type(made).__name__.lower() == name.lower()
    assert isinstance(made, keras.optimizers.Optimizer)
    assert (made.weight_decay, made.global_clipnorm) == (0.3, 2.0)
    decays = {v.name for v in made._trainable_variables if made._use_weight_decay(v)}
    assert decays == {"kernel"}


def test_arguments_reach_the_optimizer_and_train(small_recipe, tmp_path):
    settings = ["optimizer.name=sgd", "optimizer.arguments={momentum: 0.9, nesterov: true}"]
    settings += ["optimizer.schedule=cosine", "optimizer.weight_decay=0", "training.batch_size=32", "model.dim=16"]
    recipe = small_recipe(*settings, "optimizer.learning_rate=0.05", "training.epochs=3")
    bundle = keras_convmixer.train(recipe, tmp_path, verbose=0)
    assert keras_convmixer.evaluate(bundle, "digits").top(1) > 0.4
    assert keras_convmixer.Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_arguments_are_numbers_as_people_write_them(optimizer):
    assert optimizer("optimizer.name=adam", "optimizer.arguments.epsilon=1e-8").epsilon == 1e-8
    made = optimizer("optimizer.name=muon", "optimizer.arguments={momentum: 9e-1, matrix_multiplier: '2'}")
    assert (made.momentum, made.matrix_multiplier) == (0.9, 2)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["optimizer.name=sdg"], "unknown optimizer.name 'sdg'; did you mean 'sgd'"),
        (["optimizer.name=sgd", "optimizer.arguments={momentun: 0.9}"], "do not suit sgd: .*momentun"),
        (
            ["optimizer.name=adam", "optimizer.arguments.epsilon=tiny"],
            "epsilon: input should be a number, got 'tiny'",
        ),
        (
            ["optimizer.name=muon", "optimizer.arguments.momentum=9"],
            "momentum of muon must be a number from 0 to 1,",
        ),
        (
            ["optimizer.name=muon", "optimizer.arguments.matrix_multiplier=null"],
            "of muon must be .* 0 or more, got N",
        ),
        (["optimizer.arguments={momentum: 0.9}"], "adamw has keys of its own"),
        (["optimizer.name=sgd", "optimizer.layer_decay=0.9"], "are for adamw"),
        (["optimizer.name=lion", "optimizer.beta_1=0.95"], "beta_1 and beta_2 are for adamw and muon; .*arguments"),
        (["optimizer.warmup_epochs=1"], "one_cycle rises of itself"),
        (["optimizer.schedule=cosine", "optimizer.warmup_epochs=4"], "must be less than training.epochs 4"),
    ],
)
def test_what_does_not_fit_is_refused(optimizer, overrides, message):
    with pytest.raises(ValueError, match=message):
        optimizer(*overrides)


def test_adamws_settings_are_the_recipes(small_recipe):
    settings = {
        "beta_1": 0.8,
        "beta_2": 0.95,
        "epsilon": 1e-5,
        "weight_decay": 0.3,
        "clip_norm": 2.0,
        "decay": "all",
    }
    overrides = [f"optimizer.{name}={value}" for name, value in settings.items()]
    model = keras_convmixer.ConvMixer(8, 1, 3, 1, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    recipe = small_recipe(*overrides, "training.precision=mixed_float16", "optimizer.layer_decay=0.5")
    found = compiled(recipe, model, STEPS).optimizer
    assert (found.beta_1, found.beta_2, found.epsilon, found.decoupled_decay) == (0.8, 0.95, 1e-5, 0.3)
    assert (found.global_clipnorm, found.decay_1d, found.loss_scaling) == (2.0, True, True)
    assert found.multipliers["block_0_depthwise"] == 0.5
    other = compiled(
        small_recipe("optimizer.name=sgd", "optimizer.decay=all"), model, STEPS, "mixed_float16"
    ).optimizer
    assert other.loss_scaling
    assert all(other._use_weight_decay(v) for v in other._trainable_variables)
    plain = compiled(small_recipe(), model, STEPS).optimizer
    assert (plain.decay_1d, plain.loss_scaling) == (False, False)


def test_the_loss_is_that_of_logits_and_the_accuracy_goes_by_its_name(small_recipe):
    model = keras_convmixer.ConvMixer(8, 1, 3, 1, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    model.get_layer("head").set_weights([np.zeros((8, 3)), np.array([0.0, 1.0, 5.0])])
    trained = compiled(small_recipe(), model, STEPS)
    labels = np.eye(3)[[2, 2, 2, 0]]
    found = trained.evaluate(np.zeros((4, 8, 8, 3)), labels, verbose=0, return_dict=True)
    logs = np.log(np.exp([0.0, 1, 5]).sum()) - np.array([5, 5, 5, 0])
    assert found == pytest.approx({"loss": logs.mean(), "accuracy": 0.75}, rel=1e-5)
