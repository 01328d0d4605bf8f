"""One device or several: the tf.distribute strategy, and what BatchNorm needs of it."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer.errors import UserError


def strategy(devices=None):
    """The strategy for some devices: a MirroredStrategy over more than one, otherwise a single device's.

    Args:
        devices: names such as ("GPU:0", "GPU:1"), or None for every GPU there is, or the CPU. "CPU:1" and on
            are logical devices, made where TensorFlow has not started yet.

    Raises:
        ValueError: a device is not there.
    """
    if devices is None:
        devices = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    devices = [device.strip().upper() for device in devices]
    _make_logical_cpus(devices)
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [device for device in devices if device not in known]
    if missing:
        raise UserError(f"no device {', '.join(missing)} here; there are {', '.join(known)}")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([f"/{device}" for device in devices])
    return tf.distribute.OneDeviceStrategy(f"/{devices[0]}") if devices else tf.distribute.get_strategy()


def scope(strategy):
    """The strategy's scope; on Keras's other backends, which have no use for one, an empty context."""
    return strategy.scope() if keras.backend.backend() == "tensorflow" else contextlib.nullcontext()


def average_batch_norm(model, strategy):
    """Gives every replica the mean of the replicas' BatchNorm statistics, which each gathers for itself.

    Saving reads the first replica alone. The authors average at the end of each epoch, as is done here.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in (layer.moving_mean, layer.moving_variance):
                values = [replica.numpy() for replica in strategy.experimental_local_results(variable.value)]
                variable.assign(np.mean(values, axis=0))


def _make_logical_cpus(devices):
    numbers = [int(device.removeprefix("CPU:")) for device in devices if device.startswith("CPU:")]
    if not numbers or max(numbers) == 0:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started: the check for missing devices follows.
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * (max(numbers) + 1)
        )
