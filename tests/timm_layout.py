"""timm's ConvMixer state dict, copied into our layers by hand: independent of the package's own converter."""

import numpy as np


def layer_names(depth):
    """Our layer → the keys of its weights in timm's layout, each with the axes that turn it into Keras's."""
    convolution, depthwise, linear, vector = (2, 3, 1, 0), (2, 3, 0, 1), (1, 0), (0,)
    statistics = ("weight", "bias", "running_mean", "running_var")

    def norm(prefix):
        return [(f"{prefix}.{name}", vector) for name in statistics]

    names = {
        "patch_embedding": [("stem.0.weight", convolution), ("stem.0.bias", vector)],
        "patch_embedding_norm": norm("stem.2"),
        "head": [("head.weight", linear), ("head.bias", vector)],
    }
    for i in range(depth):
        block = f"blocks.{i}"
        names[f"block_{i}_depthwise"] = [(f"{block}.0.fn.0.weight", depthwise), (f"{block}.0.fn.0.bias", vector)]
        names[f"block_{i}_depthwise_norm"] = norm(f"{block}.0.fn.2")
        names[f"block_{i}_pointwise"] = [(f"{block}.1.weight", convolution), (f"{block}.1.bias", vector)]
        names[f"block_{i}_pointwise_norm"] = norm(f"{block}.3")
    return names


def depth_of(state):
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))


def copy_into(model, state):
    """Sets the model's weights to those of a timm state dict of numpy arrays."""
    for layer, keys in layer_names(depth_of(state)).items():
        model.get_layer(layer).set_weights([np.transpose(state[key], axes) for key, axes in keys])


def arrays_of(model, depth):
    """The model's weights as a timm state dict, without the counters `num_batches_tracked`."""
    return {
        key: np.transpose(value, np.argsort(axes))
        for layer, keys in layer_names(depth).items()
        for (key, axes), value in zip(keys, model.get_layer(layer).get_weights())
    }
