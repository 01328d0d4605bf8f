"""The dtype policy that a recipe's precision means on the hardware at hand."""

import dataclasses
import sys

import keras
import tensorflow as tf

from keras_convmixer.machine import cpu_flags, cpu_vendor
from keras_convmixer.training import distribute


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What trains.

    Attributes:
        kind: "CPU", "GPU" or "TPU".
        capability: the CUDA compute capability of a GPU, of several the lowest.
        flags, vendor: what a CPU can do, and whose it is, as Linux names it.
        names: each device's; on TensorFlow a GPU with what it is, as "GPU:0 (NVIDIA A100)".
        has_no_gpu: whether there is none, rather than one that is not asked for.
    """

    kind: str
    capability: tuple[int, int] = (0, 0)
    flags: frozenset[str] = frozenset()
    vendor: str = ""
    names: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    has_no_gpu: bool = dataclasses.field(default=False, compare=False)

    @property
    def is_fast_in_bfloat16(self):
        """Whether it computes faster in bfloat16 than in float32."""
        if self.kind == "GPU":
            return self.capability >= (8, 0)
        # Intel's AVX-512 has the instructions too, but trains slower by them: 0.78 times float32's images/s.
        by_vectors = "avx512_bf16" in self.flags and self.vendor == "AuthenticAMD"
        return self.kind == "TPU" or "amx_bf16" in self.flags or by_vectors

    @property
    def is_slow_in_bfloat16(self):
        """Whether it is known to compute slower in bfloat16 than in float32."""
        return self.kind == "CPU" and bool(self.flags) and not self.is_fast_in_bfloat16


def policy(precision, hardware):
    """Keras's dtype policy for a recipe's `training.precision`.

    "mixed" is bfloat16, which needs no loss scaling, where the hardware is fast at it; else float16 on a GPU, else
    float32.
    """
    if precision != "mixed":
        return precision
    if hardware.is_fast_in_bfloat16:
        return "mixed_bfloat16"
    return "mixed_float16" if hardware.kind == "GPU" else "float32"


def said(precision, machine):
    """The policy for a `Hardware`. What the recipe leaves open, or asks for in vain, is said on stderr."""
    found = policy(precision, machine)
    if found != precision:
        print(f"training.precision: {precision} is {found} on this hardware", file=sys.stderr)
    elif precision == "mixed_bfloat16" and machine.is_slow_in_bfloat16:
        words = "is slower than float32 on this processor, without AVX-512 many times; mixed takes what is faster"
        print(f"training.precision: {precision} {words}", file=sys.stderr)
    return found


def hardware(devices=None):
    """The `Hardware` of some devices, named as `distribute.names` takes them."""
    found, names = _jax_devices() if keras.backend.backend() == "jax" else _tensorflow_devices(devices)
    if "CPU" in found:
        none = not tf.config.list_physical_devices("GPU")
        return Hardware("CPU", flags=cpu_flags(), vendor=cpu_vendor(), names=names, has_no_gpu=none)
    if "TPU" in found:
        return Hardware("TPU", names=names)
    return Hardware("GPU", capability=min(found["GPU"]), names=names)


def _tensorflow_devices(devices):
    """Kind → compute capabilities, and the devices' names."""
    found, names = {}, []
    for name in distribute.names(devices):
        kind, _, number = name.partition(":")
        details = {}
        if kind == "GPU":
            gpu = tf.config.list_physical_devices("GPU")[int(number)]
            details = tf.config.experimental.get_device_details(gpu)
        found.setdefault(kind, []).append(details.get("compute_capability", (0, 0)))
        names.append(f"{name} ({details['device_name']})" if "device_name" in details else name)
    return found, tuple(names)


def _jax_devices():
    import jax

    found, names = {}, []
    devices = jax.local_devices()
    for device in devices if jax.process_count() > 1 else devices[:1]:  # a process alone trains on the first
        capability = getattr(device, "compute_capability", "0.0")
        found.setdefault(device.platform.upper(), []).append(tuple(map(int, capability.split("."))))
        names.append(str(device))
    return found, tuple(names)
