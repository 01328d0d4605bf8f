"""One device or several: where a training runs, and what BatchNorm needs where replicas share it."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer.errors import UserError

# Logical ones, which are threads: more than this is a slip of the pen.
MOST_CPUS = 256


@contextlib.contextmanager
def on(devices=None):
    """A context for training on some devices, to be entered before TensorFlow starts. It gives the strategy.

    That is a MirroredStrategy for several devices. For one it is TensorFlow's default: under any other, if only of
    one device, Keras leaves XLA off.

    Args:
        devices: as `names` takes them. "CPU:1" and on are logical devices, which are made here.

    Raises:
        ValueError: a device is not there, or Keras's backend takes none by name.
    """
    if keras.backend.backend() != "tensorflow":
        if devices:
            raise UserError(
                f"devices are for the tensorflow backend alone; this is {keras.backend.backend()}, where "
                "CUDA_VISIBLE_DEVICES chooses and --processes gives each GPU a process"
            )
        with contextlib.suppress(RuntimeError):  # TensorFlow has started
            # It only reads images here, and would take the whole of a GPU's memory for itself.
            tf.config.set_visible_devices([], "GPU")
        yield tf.distribute.get_strategy()
        return
    wanted = names(devices)
    _make_logical_cpus(wanted)
    _check(wanted)
    if len(wanted) > 1:
        yield _mirrored(tuple(wanted))
    else:
        with tf.device(f"/{wanted[0]}") if devices else contextlib.nullcontext():
            yield tf.distribute.get_strategy()


def names(devices=None):
    """Devices as TensorFlow names them, such as "GPU:0"; None is every GPU there is, or the CPU."""
    if devices is None:
        devices = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))] or ["CPU:0"]
    return [device.strip().upper() for device in devices]


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


@functools.cache
def _mirrored(devices):
    # One in a process: TensorFlow takes the reductions of two on the same devices for each other's.
    return tf.distribute.MirroredStrategy([f"/{device}" for device in devices])


def _make_logical_cpus(devices):
    numbers = [int(device[4:]) for device in devices if device.startswith("CPU:") and device[4:].isdecimal()]
    if not numbers or max(numbers) == 0:
        return
    if max(numbers) >= MOST_CPUS:
        raise UserError(f"CPU:{max(numbers)} is one device too many: CPU:0 to CPU:{MOST_CPUS - 1} can be made here")
    cpu = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started; they may have been made before that
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * (max(numbers) + 1)
        )


def _check(devices):
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [device for device in devices if device not in known]
    if not missing:
        return
    message = f"no device {', '.join(missing)} here; there are {', '.join(known)}"
    if any(device.startswith("CPU:") for device in missing):
        message += ". More CPUs can be made only before TensorFlow starts: train in a new process"
    raise UserError(message)
