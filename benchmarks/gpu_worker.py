"""What gpu.py runs for each measurement, in a process of its own.

    python gpu_worker.py SETTING RESULT

SETTING is JSON: a `gpu.Configuration` with the sizes of its model. JSON is written to the file RESULT: what was
measured, or under "error" why nothing was.
"""

import functools
import json
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_convmixer.errors import first_line
from keras_convmixer.machine import processor

WARM_UP = 5  # the first of these compile, and choose among cuDNN's algorithms


def main(setting, result):
    setting = SimpleNamespace(**json.loads(setting))
    try:
        answer = measured(setting)
    except Exception as error:  # A configuration may fail in any way; the others are measured all the same.
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {reason(str(error))}", "text": str(error)}
    Path(result).write_text(json.dumps(answer), encoding="utf-8")


def reason(text):
    """The line of an error that says what went wrong. TensorFlow begins with where, and ends with nodes in [[]]."""
    if text.startswith("Graph execution error"):
        text = text.partition("[[{{")[0].strip().rpartition("\n")[2]
    return first_line(text)


def measured(setting):
    """Seconds of each thing that the setting's task does once, peak memory in bytes, and the device's name."""
    library = LIBRARIES[setting.backend](setting)
    if library.device is None:
        return {"error": f"{setting.backend} sees no GPU", "text": ""}
    seconds = {}
    for name, step in getattr(library, setting.task)(setting).items():
        for _ in range(WARM_UP):
            last = step()
        library.wait(last)
        start = time.perf_counter()
        for _ in range(setting.steps):
            last = step()
        library.wait(last)
        seconds[name] = (time.perf_counter() - start) / setting.steps
    return {"seconds": seconds, "peak_memory": library.peak_memory(), "device": library.device}


class OnKeras:
    """The tasks on a Keras backend, each as the things that it does once: name → step."""

    def __init__(self, setting):
        import keras

        keras.config.set_image_data_format(setting.layout)

    def train(self, setting):
        import keras

        from keras_convmixer import Recipe
        from keras_convmixer.training.compiled import compiled

        model = compiled(Recipe.load(setting.recipe), self._plain(setting), 1000, setting.precision)
        classes = keras.random.randint((setting.batch_size,), 0, setting.num_classes, seed=1)
        labels = keras.ops.one_hot(classes, setting.num_classes)
        return {"step": self.training_step(model, self._images(setting), labels)}

    def inference(self, setting):
        from keras_convmixer import fold

        plain = self._plain(setting)
        model = in_precision(fold(plain) if setting.form == "folded" else plain, setting.precision)
        return {"step": self.inference_step(model, self._images(setting))}

    def depthwise(self, setting):
        """The forward pass of one layer, its two gradients, and as a measure of memory, a copy on the device."""
        import keras
        from depthwise_sum import depthwise_sum

        whole = functools.partial(keras.ops.depthwise_conv, padding="same")
        convolution = {"whole": whole, "sum": depthwise_sum}[setting.form]
        convolution = functools.partial(convolution, data_format=setting.layout)
        side = setting.input_size // setting.patch_size
        kernel = (setting.kernel_size, setting.kernel_size, setting.dim, 1)
        images = _image_shape(setting, side, setting.dim)
        dtype = setting.precision.removeprefix("mixed_")
        x, dy, kernel = (keras.random.normal(shape, dtype=dtype, seed=0) for shape in (images, images, kernel))
        source = keras.ops.ones((setting.copied_bytes // 4,), "float32")
        forward, copy = self.jitted(convolution), self.jitted(lambda x: x + 1)
        backward = self.jitted(functools.partial(self.gradients, convolution))
        return {
            "forward": lambda: forward(x, kernel),
            "backward": lambda: backward(x, kernel, dy),
            "copy": lambda: copy(source),
        }

    @staticmethod
    def _plain(setting):
        from keras_convmixer import ConvMixer

        return ConvMixer(
            setting.dim,
            setting.depth,
            setting.kernel_size,
            setting.patch_size,
            input_shape=_image_shape(setting, setting.input_size, 3)[1:],
            num_classes=setting.num_classes,
            classifier_activation=None,
            activation=setting.activation,
        )

    @staticmethod
    def _images(setting):
        import keras

        return keras.random.uniform(_image_shape(setting, setting.input_size, 3), 0, 255, seed=0)


class OnJax(OnKeras):
    def __init__(self, setting):
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")  # this package imports it, and it would take the GPU's memory
        super().__init__(setting)
        import jax

        self.jitted, self.wait = jax.jit, jax.block_until_ready
        self._device = jax.local_devices()[0]
        self.device = _name(setting, self._device.platform != "cpu" and self._device.device_kind)

    def training_step(self, model, images, labels):
        model.test_on_batch(images[:1], labels[:1])  # makes the metrics' variables
        step = self.jitted(model.train_step, donate_argnums=0)
        variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple([variable.value for variable in some] for some in variables)

        def run():
            nonlocal state
            _, state = step(state, (images, labels))
            return state

        return run

    def inference_step(self, model, images):
        variables = [[v.value for v in some] for some in (model.trainable_variables, model.non_trainable_variables)]
        step = self.jitted(lambda variables, images: model.stateless_call(*variables, images, training=False)[0])
        return lambda: step(variables, images)

    @staticmethod
    def gradients(convolution, x, kernel, dy):
        import jax

        return jax.vjp(convolution, x, kernel)[1](dy)

    def peak_memory(self):
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use")


class OnTensorFlow(OnKeras):
    def __init__(self, setting):
        super().__init__(setting)
        import tensorflow as tf

        self.jitted = functools.partial(tf.function, jit_compile=setting.compiled, autograph=False)
        gpus = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        self.device = _name(setting, gpus and details.get("device_name", "GPU"))

    def training_step(self, model, images, labels):
        step = self.jitted(model.train_step)
        return lambda: step((images, labels))

    def inference_step(self, model, images):
        step = self.jitted(lambda images: model(images, training=False))
        return lambda: step(images)

    @staticmethod
    def gradients(convolution, x, kernel, dy):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = convolution(x, kernel)
        return tape.gradient(y, (x, kernel), output_gradients=dy)

    @staticmethod
    def wait(_):
        import tensorflow as tf

        tf.test.experimental.sync_devices()

    @staticmethod
    def peak_memory():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None


class OnTimm:
    """timm's ConvMixer as its own scripts train and benchmark it: AMP, and cuDNN's algorithms tried out."""

    def __init__(self, setting):
        import torch

        self._place = "cuda" if setting.device == "gpu" else "cpu"
        self.device = _name(setting, torch.cuda.is_available() and torch.cuda.get_device_name())
        torch.backends.cudnn.benchmark = True

    def train(self, setting):
        import torch

        from keras_convmixer import Recipe

        optimization = Recipe.load(setting.recipe).optimizer
        model, forward, images = self._model(setting)
        optimizer = torch.optim.AdamW(
            model.parameters(), 1e-3, eps=optimization.epsilon, weight_decay=optimization.weight_decay, fused=True
        )
        scaler = torch.amp.GradScaler(self._place, enabled=setting.precision == "mixed_float16")
        classes = torch.randint(setting.num_classes, (setting.batch_size,), device=self._place)
        labels = torch.nn.functional.one_hot(classes, setting.num_classes).float()

        def step():
            with self._autocast(setting):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if optimization.clip_norm:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), optimization.clip_norm)
            scaler.step(optimizer)
            scaler.update()

        return {"step": step}

    def inference(self, setting):
        import torch

        model, forward, images = self._model(setting)
        model.eval()

        def step():
            with torch.inference_mode(), self._autocast(setting):
                forward(images)

        return {"step": step}

    def _model(self, setting):
        """The model, what calls it, and random images in timm's range, which is normalised already."""
        import torch
        from timm.models.convmixer import ConvMixer

        names = ("dim", "depth", "kernel_size", "patch_size", "num_classes")
        act_layer = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}[setting.activation]
        memory_format = getattr(torch, {"channels_first": "contiguous_format"}.get(setting.layout, setting.layout))
        model = ConvMixer(act_layer=act_layer, **{name: getattr(setting, name) for name in names})
        model = model.to(self._place, memory_format=memory_format)
        images = torch.randn(setting.batch_size, 3, setting.input_size, setting.input_size, device=self._place)
        images = images.to(memory_format=memory_format)
        return model, torch.compile(model) if setting.compiled else model, images

    def _autocast(self, setting):
        import torch

        half = setting.precision.removeprefix("mixed_")
        return torch.autocast(
            self._place, getattr(torch, half) if half != "float32" else None, enabled=half != "float32"
        )

    def wait(self, _):
        import torch

        if self._place == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self):
        import torch

        return torch.cuda.max_memory_allocated() if self._place == "cuda" else None


LIBRARIES = {"jax": OnJax, "tensorflow": OnTensorFlow, "timm": OnTimm}


def _name(setting, gpu):
    """The name of the device that is asked for; None if it is a GPU and there is none."""
    return processor() if setting.device == "cpu" else gpu or None


def _image_shape(setting, side, channels):
    first = setting.layout == "channels_first"
    return (setting.batch_size, *((channels, side, side) if first else (side, side, channels)))


def in_precision(model, policy):
    """A model's clone that computes with a dtype policy, but for its normalisation and head."""
    import keras

    def clone(operation):
        if not isinstance(operation, keras.layers.Layer):
            return operation
        config = operation.get_config()
        if not isinstance(operation, (keras.layers.Rescaling, keras.layers.Dense)):
            config["dtype"] = policy
        return type(operation).from_config(config)

    def call(operation, x, *others, **arguments):
        # The factors and shifts of a folded model: left in float32, they would make float32 of everything.
        cast = [keras.ops.cast(other, x.dtype) if isinstance(other, np.ndarray) else other for other in others]
        return operation(x, *cast, **arguments)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    copy.set_weights(model.get_weights())
    return copy


if __name__ == "__main__":
    main(*sys.argv[1:])
