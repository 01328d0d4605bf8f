"""The model as it is trained, cloned from the plain one that is saved: speed, precision, memory."""

import keras
from keras import layers

from keras_convmixer.training.dropout import ReplicaDropout
from keras_convmixer.training.fused import fuse


def training_model(model, precision="float32", rematerialize=False, any_size=False, synchronized=False):
    """A model with the same layers' names and weights, computing as the training wants.

    On TensorFlow, some layers become the faster equals of `training.fused`, and each replica draws its own dropout.

    Args:
        model: plain float32 model.
        precision: a Keras dtype policy. The normalisation at the start and the head at the end stay float32.
        rematerialize: recompute every convolution's output and activation in the backward pass instead of
            keeping them. (Keras's `RematScope` cannot: on TensorFlow it fails on layers called with
            `training=`, and it would update BatchNorm's statistics twice.)
        any_size: whether it takes images of any size, of which the plain model takes one.
        synchronized: whether the replicas of a `tf.distribute` strategy share BatchNorm's statistics.

    Returns:
        The clone. `set_weights` carries weights from one to the other.
    """
    by_name = {layer.name: layer for layer in model.layers}

    def clone(layer):
        config = layer.get_config()
        if not isinstance(layer, (layers.InputLayer, layers.Rescaling, layers.Dense)):
            config["dtype"] = precision
        if isinstance(layer, layers.BatchNormalization):
            config["synchronized"] = synchronized
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            # The activation moves into the convolution: to be computed, or recomputed, in one with it.
            config["activation"] = by_name[f"{layer.name}_activation"].get_config()["activation"]
        elif isinstance(layer, layers.Activation):
            config["activation"] = "linear"
        elif isinstance(layer, layers.Dropout) and keras.backend.backend() == "tensorflow":
            return ReplicaDropout.from_config(config)
        made = fuse(layer, config) or type(layer).from_config(config)
        if rematerialize and isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            return _Rematerialized(made, name=layer.name)
        return made

    image = None
    if any_size:
        channels_first = by_name["patch_embedding"].data_format == "channels_first"
        channels = model.input_shape[1 if channels_first else -1]
        image = keras.Input((channels, None, None) if channels_first else (None, None, channels), name="image")
    copy = keras.models.clone_model(model, input_tensors=image, clone_function=clone)
    copy.set_weights(model.get_weights())
    for ours, theirs in zip(copy.layers, model.layers):
        ours.trainable = theirs.trainable
    return copy


class _Rematerialized(layers.Wrapper):
    def call(self, inputs):
        return keras.remat(self.layer)(inputs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
