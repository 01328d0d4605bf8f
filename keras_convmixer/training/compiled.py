"""The model as a recipe trains it: its clone, optimizer, schedule and loss."""

import math

import keras

from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.parts import parts
from keras_convmixer.recipes.sections import Optimizer
from keras_convmixer.training import dtype_policy
from keras_convmixer.training.accumulation import InParts
from keras_convmixer.training.after_reduction import AfterReduction
from keras_convmixer.training.muon import Muon
from keras_convmixer.training.optimizer import AdamW, rate_multipliers, trains_head_alone
from keras_convmixer.training.schedule import OneCycle
from keras_convmixer.training.training_model import training_model


def compiled(recipe, model, steps, precision=None):
    """The `training_model` of a plain model, compiled with the recipe's optimizer and loss.

    Args:
        recipe: a `Recipe`. model: the plain model. steps: in an epoch.
        precision: a dtype policy. Default: the recipe's, for the devices that `train` takes by default.

    Raises:
        UserError: the recipe's optimizer is unknown, or does not take what the recipe gives it.
    """
    _check_backend(recipe.training)
    precision = precision or dtype_policy.said(recipe.training.precision, dtype_policy.hardware())
    training = recipe.training
    trained = training_model(
        model,
        precision,
        training.rematerialize,
        any_size=bool(training.progressive_resizing),
        synchronized=training.batch_norm == "synchronized",
    )
    if training.gradient_accumulation > 1:
        trained = InParts(trained.inputs, trained.outputs, training.gradient_accumulation, trained.name)
    schedule = learning_rate(recipe.optimizer, recipe.training.epochs, steps)
    make = {"adamw": _adamw, "muon": _muon}.get(recipe.optimizer.name, _of_keras)
    trained.compile(
        optimizer=make(recipe.optimizer, trained, schedule, loss_scaling=precision == "mixed_float16"),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        auto_scale_loss=False,
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _check_backend(training):
    changed = {
        "gradient_accumulation": training.gradient_accumulation > 1,
        "batch_norm": training.batch_norm != "replica",
    }
    given = [f"training.{key}" for key, is_changed in changed.items() if is_changed]
    if given and keras.backend.backend() != "tensorflow":
        raise UserError(f"{given[0]} is for the tensorflow backend; this is {keras.backend.backend()}")


def learning_rate(settings, epochs, steps):
    """The schedule of a recipe's `Optimizer`, of so many steps an epoch. Raises UserError if there can be none."""
    if settings.schedule == "one_cycle":
        if settings.warmup_epochs:
            raise UserError("optimizer.warmup_epochs is for cosine and constant: one_cycle rises of itself")
        return OneCycle(settings.learning_rate, epochs, steps)
    warmup = round(settings.warmup_epochs * steps)
    if warmup >= epochs * steps:
        raise UserError(
            f"optimizer.warmup_epochs {settings.warmup_epochs} must be less than training.epochs {epochs}"
        )
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        decay_steps=epochs * steps - warmup,
        alpha=0.0 if settings.schedule == "cosine" else 1.0,  # what it falls to, as a share of the peak
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _adamw(settings, model, schedule, loss_scaling):
    if settings.arguments:
        raise UserError("optimizer.arguments are for Keras's optimizers; adamw has keys of its own, such as beta_1")
    return AdamW(schedule, **_of_adamw(settings, model, loss_scaling))


def _muon(settings, model, schedule, loss_scaling):
    unknown = settings.arguments.keys() - {"momentum", "matrix_multiplier"}
    if unknown:
        raise UserError(f"optimizer.arguments of muon are momentum and matrix_multiplier, not {sorted(unknown)[0]}")
    for name, most in (("momentum", 1), ("matrix_multiplier", math.inf)):
        value = settings.arguments.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < most:
            words = f"from 0 to {most}" if most == 1 else "0 or more"
            raise UserError(f"optimizer.arguments.{name} of muon must be a number {words}, got {value!r:.200}")
    blocks = [] if trains_head_alone(model) else parts(model).blocks
    matrices = [block.pointwise.convolution.name for block in blocks]
    return Muon(schedule, matrices=matrices, **settings.arguments, **_of_adamw(settings, model, loss_scaling))


def _of_adamw(settings, model, loss_scaling):
    return {
        "weight_decay": settings.weight_decay,
        "beta_1": settings.beta_1,
        "beta_2": settings.beta_2,
        "epsilon": settings.epsilon,
        "decay_1d": settings.decay == "all",
        "multipliers": rate_multipliers(model, settings.backbone_multiplier, settings.layer_decay),
        "global_clipnorm": settings.clip_norm,
        "loss_scaling": loss_scaling,
    }


def _of_keras(settings, model, schedule, loss_scaling):
    """One of Keras's own optimizers, which clips and scales the gradient of the whole batch as ours does."""
    known = {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and name not in ("Optimizer", "LossScaleOptimizer", "AdamW", "Muon")
    }
    if settings.name.lower() not in known:
        hint = did_you_mean(settings.name.lower(), ["adamw", "muon", *known])
        raise UserError(f"unknown optimizer.name {settings.name!r}; {hint}")
    if (settings.backbone_multiplier, settings.layer_decay) != (1, 1):
        raise UserError(
            "optimizer.backbone_multiplier and layer_decay are for adamw and muon; give them 1, or take these"
        )
    if (settings.beta_1, settings.beta_2) != (Optimizer.beta_1, Optimizer.beta_2):
        raise UserError(
            "optimizer.beta_1 and beta_2 are for adamw and muon; what Keras's own optimizers take goes into "
            'optimizer.arguments, as {"beta_1": 0.95}'
        )
    kind = known[settings.name.lower()]
    try:
        optimizer = type(kind.__name__, (AfterReduction, kind), {})(
            learning_rate=schedule,
            weight_decay=settings.weight_decay or None,
            global_clipnorm=settings.clip_norm,
            loss_scaling=loss_scaling,
            **settings.arguments,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.arguments {settings.arguments} do not suit {settings.name}: {error}") from None
    if settings.decay == "kernels":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
