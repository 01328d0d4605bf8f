"""The model that a recipe asks for, with the weights it starts from."""

import dataclasses

from keras_convmixer import bundles, shipped
from keras_convmixer.errors import UserError
from keras_convmixer.model import ConvMixer
from keras_convmixer.parts import architecture
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.recipes.recipe import PUBLISHED
from keras_convmixer.training.depthwise_covariance import draw_depthwise
from keras_convmixer.training.whitened_patches import whiten
from keras_convmixer.variants import RESAMPLED, create_model, get_variant, with_weights

_SIZES = ("dim", "depth", "kernel_size", "patch_size", "activation")
_PREPROCESSING = ("input_size", "crop", "interpolation", "mean", "std")


def build(recipe, classes, sample=None):
    """Builds the plain float32 model of a `recipe.Model`, ending in logits.

    Args:
        recipe: a `recipe.Model`.
        classes: the class names of its training data.
        sample: a function of the `Preprocessing` to some training images, RGB in 0–255 `(n, height, width, 3)`,
            which whitened patches need.

    Returns:
        A `bundles.Bundle` with those classes.

    Raises:
        ValueError: the recipe names no architecture, or one that cannot be built or does not fit its weights.
    """
    sizes, images, classes = _given(recipe, _SIZES), preprocessing(recipe), tuple(classes)
    arguments = sizes | {
        "dropout": recipe.dropout,
        "stochastic_depth": recipe.stochastic_depth,
        "num_classes": len(classes),
        "input_shape": (*images.input_size, 3),
        "mean": list(images.mean),
        "std": list(images.std),
        "classifier_activation": None,
    }
    missing = [name for name in _SIZES[:4] if name not in sizes]
    if folder := _folder(recipe.weights):
        start = bundles.load(folder)
        model = with_weights(
            folder,
            architecture(start.model) | arguments,
            may_resample=sizes.keys() & RESAMPLED,
            new_head=start.classes != classes,
        )
    elif recipe.variant:
        model = create_model(recipe.variant, weights=recipe.weights, **arguments)
    elif missing:
        raise UserError(
            f"the recipe names no architecture: give model.variant, or also model.{', model.'.join(missing)}"
        )
    else:
        model = ConvMixer(**arguments, weights=recipe.weights)
    if recipe.depthwise_covariance and recipe.weights is None:
        draw_depthwise(model, recipe.depthwise_covariance)
    if recipe.whitened_patches and recipe.weights is None:
        whiten(model, sample(images))
    return bundles.Bundle(model, images, classes)


def preprocessing(recipe):
    """The `Preprocessing` of the model that `build` makes of a `recipe.Model`, without building it."""
    if folder := _folder(recipe.weights):
        own = Preprocessing.read(folder / "preprocessing.json")
    else:
        own = get_variant(recipe.variant).preprocessing if recipe.variant else Preprocessing()
    return dataclasses.replace(own, **_given(recipe, _PREPROCESSING))


def _given(recipe, names):
    return {name: getattr(recipe, name) for name in names if getattr(recipe, name) is not None}


def _folder(weights):
    return None if weights in (None, *PUBLISHED) else shipped.located(weights)
