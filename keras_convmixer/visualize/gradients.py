"""A gradient on any Keras backend."""

import keras
import numpy as np


def gradient(function, at: np.ndarray) -> np.ndarray:
    """The gradient of `sum(function(x))` by x where x is `at`, an array of its shape."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(at)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = keras.ops.sum(function(x))
        return tape.gradient(total, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: keras.ops.sum(function(x)))(at))
    if backend == "torch":
        import torch

        x = keras.ops.convert_to_tensor(at).requires_grad_()
        return keras.ops.convert_to_numpy(torch.autograd.grad(keras.ops.sum(function(x)), x)[0])
    raise NotImplementedError(f"no gradients on Keras's {backend} backend: take tensorflow, jax or torch")
