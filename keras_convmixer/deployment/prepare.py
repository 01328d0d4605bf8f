"""The model as it is handed to the exporters."""

import keras
from keras import layers

from keras_convmixer.deployment import fold


def in_float32(model):
    """A copy that computes in float32, whatever precision policy the model was saved with."""

    def clone(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def prepared(model, *, folded=True, features=False):
    """The model with the outputs that an export has.

    Args:
        model: a float32 `ConvMixer` that ends in logits.
        folded: whether to `fold` it.
        features: whether to give the last block's map too.

    Returns:
        A `keras.Model` from images to a dictionary: "probabilities" and "logits" `(batch, classes)` and, if
        asked for, "features" `(batch, height, width, dim)`.

    Raises:
        ValueError: the model is not a ConvMixer of this package.
    """
    source = fold.fold(model) if folded else model
    outputs = {"probabilities": layers.Softmax(name="probabilities")(source.output), "logits": source.output}
    if features:
        pooled = source.get_layer("pool").input
        scale, shift = fold.folded(model).features if folded else (1.0, 0.0)
        outputs["features"] = pooled * scale + shift
    return keras.Model(source.input, outputs, name=model.name)
