"""The model that a recipe asks for, with the weights it starts from."""

import dataclasses
import sys
from pathlib import Path

import keras

from keras_convmixer import bundles
from keras_convmixer.errors import UserError
from keras_convmixer.model import ConvMixer
from keras_convmixer.parts import architecture
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.variants import RESAMPLED, create_model, get_variant
from keras_convmixer.weights.state_dict import load_state, state_dict
from keras_convmixer.weights.stored_array import CheckpointError

_SIZES = ("dim", "depth", "kernel_size", "patch_size", "activation")
_PREPROCESSING = ("input_size", "crop", "interpolation", "mean", "std")


def build(recipe, classes):
    """Builds the plain float32 model of a `recipe.Model`, ending in logits.

    Args:
        recipe: a `recipe.Model`.
        classes: the class names of its training data.

    Returns:
        A `bundle.Bundle` with those classes.

    Raises:
        ValueError: the recipe names no architecture, or one that cannot be built or does not fit its weights.
    """
    sizes = {name: getattr(recipe, name) for name in _SIZES if getattr(recipe, name) is not None}
    rates = {"dropout": recipe.dropout, "stochastic_depth": recipe.stochastic_depth}
    start = bundles.load(recipe.weights) if recipe.weights and Path(recipe.weights).is_dir() else None
    if start:
        preprocessing = start.preprocessing
        resampled = sizes.keys() & RESAMPLED
        sizes = architecture(start.model) | sizes
    elif recipe.variant:
        preprocessing = get_variant(recipe.variant).preprocessing
    else:
        preprocessing = Preprocessing()
        missing = [name for name in _SIZES[:4] if name not in sizes]
        if missing:
            raise UserError(
                f"the recipe names no architecture: give model.variant, or also model.{', model.'.join(missing)}"
            )
    preprocessing = _overridden(preprocessing, recipe)

    arguments = sizes | rates
    arguments |= {
        "num_classes": len(classes),
        "input_shape": (*preprocessing.input_size, 3),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "classifier_activation": None,
    }
    if start:
        model = ConvMixer(**arguments)
        _transfer(start, model, classes, resampled)
    elif recipe.variant:
        model = create_model(recipe.variant, weights=recipe.weights, **arguments)
    else:
        model = ConvMixer(**arguments, weights=recipe.weights)
    return bundles.Bundle(model, preprocessing, tuple(classes))


def preprocessing(recipe):
    """The `Preprocessing` of the model that `build` makes of a `recipe.Model`, without building it."""
    if recipe.weights and Path(recipe.weights).is_dir():
        return _overridden(Preprocessing.read(Path(recipe.weights) / "preprocessing.json"), recipe)
    return _overridden(get_variant(recipe.variant).preprocessing if recipe.variant else Preprocessing(), recipe)


def _overridden(preprocessing, recipe):
    given = {name: getattr(recipe, name) for name in _PREPROCESSING if getattr(recipe, name) is not None}
    return dataclasses.replace(preprocessing, **given)


def _transfer(start, model, classes, may_resample):
    """Copies the weights of a model folder; a head for other classes stays new."""
    if start.classes == tuple(classes):
        taking = model
    else:
        print(
            f"the head of {start.path} names {len(start.classes)} other classes: a new one is started",
            file=sys.stderr,
        )
        # The same layers without the head.
        taking = keras.Model(model.input, model.get_layer("pool").output, name=model.name)
    try:
        load_state(taking, state_dict(start.model), may_resample=may_resample)
    except CheckpointError as error:
        raise CheckpointError(f"{start.path}: {error}") from None
