"""How fast a training step is: plain Keras against what `convmixer train` runs, and against PyTorch.

    python benchmarks/training_speed.py            # ConvMixer-256/8, kernel 5, patch 2, at 32x32
    python benchmarks/training_speed.py convmixer_768_32 --input-size 224 --batch-size 8
    python benchmarks/training_speed.py --peers    # PyTorch's ways too, where torch is installed

Every way runs in a process of its own, and they take turns: `--blocks` times `--steps` steps, after one that is
not counted. A step is forward, backward and AdamW on a batch in memory. The figures are medians; beside them stand
the quartiles, the process's peak memory, and how far the gradients are from those of plain Keras in float32: the
norm of the difference over the norm.
"""

import argparse
import dataclasses
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from torch_convmixer import convmixer

from keras_convmixer.machine import processor, versions


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained, the same for every way."""

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    activation: str
    input_size: int
    batch_size: int
    threads: int

    def batch(self):
        rng = np.random.default_rng(0)
        images = rng.uniform(0, 255, (self.batch_size, self.input_size, self.input_size, 3)).astype("float32")
        return images, rng.integers(0, 10, self.batch_size)

    def plain(self):
        import keras

        import keras_convmixer

        keras.utils.set_random_seed(0)
        return keras_convmixer.ConvMixer(
            self.dim,
            self.depth,
            self.kernel_size,
            self.patch_size,
            input_shape=(self.input_size, self.input_size, 3),
            num_classes=10,
            classifier_activation=None,
            activation=self.activation,
        )


def plain_keras(setting, precision="float32"):
    import keras

    def at_precision(layer):
        config = layer.get_config()
        if not isinstance(layer, (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Dense)):
            config["dtype"] = precision
        return type(layer).from_config(config)

    plain = setting.plain()
    model = keras.models.clone_model(plain, clone_function=at_precision)
    model.set_weights(plain.get_weights())
    return _keras_step(setting, model, keras.optimizers.AdamW(1e-3))


def keras_convmixer(setting, precision="float32", allocator=True, rematerialize=False):
    from keras_convmixer.training.allocator import keep_freed_memory

    if allocator:
        keep_freed_memory()
    from keras_convmixer.training.optimizer import AdamW
    from keras_convmixer.training.training_model import training_model

    return _keras_step(setting, training_model(setting.plain(), precision, rematerialize), AdamW(1e-3))


def _keras_step(setting, model, optimizer):
    import keras
    import tensorflow as tf

    images, labels = setting.batch()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return tape.gradient(value, [variable.value for variable in model.trainable_variables])

    return lambda: model.train_on_batch(images, labels), lambda: [gradient.numpy() for gradient in gradients()]


def pytorch(setting, autocast=False, compiled=False):
    import torch
    from torch import nn

    torch.set_num_threads(setting.threads)
    model = convmixer(
        setting.dim, setting.depth, setting.kernel_size, setting.patch_size, activation=setting.activation
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    run = torch.compile(model) if compiled else model
    images, labels = (torch.from_numpy(array) for array in setting.batch())
    images = (images / 255).permute(0, 3, 1, 2)  # channels last already

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(run(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, None


@dataclasses.dataclass(frozen=True)
class Way:
    build: Callable  # (Setting, **arguments) -> the step, and what gives the gradients
    arguments: dict = dataclasses.field(default_factory=dict)


MEASURE = "Keras, float32"
WAYS = {
    MEASURE: Way(plain_keras),
    "Keras, mixed_bfloat16": Way(plain_keras, {"precision": "mixed_bfloat16"}),
    "keras_convmixer, float32": Way(keras_convmixer),
    "keras_convmixer, stock allocator": Way(keras_convmixer, {"allocator": False}),
    "keras_convmixer, rematerialized": Way(keras_convmixer, {"rematerialize": True}),
    "keras_convmixer, mixed_bfloat16": Way(keras_convmixer, {"precision": "mixed_bfloat16"}),
}
PEERS = {
    "PyTorch eager, float32": Way(pytorch),
    "PyTorch eager, bfloat16 autocast": Way(pytorch, {"autocast": True}),
    "PyTorch compiled, float32": Way(pytorch, {"compiled": True}),
    "PyTorch compiled, bfloat16 autocast": Way(pytorch, {"autocast": True, "compiled": True}),
}


def _work(connection, way, setting):
    """A way's process: builds it, then does blocks of steps as it is told."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(setting.threads))
    os.environ |= threads | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    step, gradients = way.build(setting, **way.arguments)
    found = gradients and gradients()
    for _ in range(2):
        step()
    connection.send(found)
    while steps := connection.recv():
        times = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        connection.send(times[1:])
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", nargs="?", help="a named variant; default: the sizes below")
    for name, default in (("dim", 256), ("depth", 8), ("kernel-size", 5), ("patch-size", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--activation", choices=("gelu", "relu"), default="gelu")
    parser.add_argument("--input-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--only", action="append", metavar="TEXT", help="ways with this in their name; repeatable")
    arguments = parser.parse_args()
    if arguments.peers and not find_spec("torch"):
        parser.error("--peers needs PyTorch: pip install torch")
    sizes = vars(arguments).copy()
    if arguments.variant:
        from keras_convmixer.variants import get_variant

        try:
            sizes |= vars(get_variant(arguments.variant))
        except ValueError as error:
            parser.error(str(error))
    setting = Setting(**{field.name: sizes[field.name] for field in dataclasses.fields(Setting)})
    ways = WAYS | (PEERS if arguments.peers else {})
    if arguments.only:  # and plain Keras in float32, the measure of all
        ways = {
            name: way for name, way in ways.items() if name == MEASURE or any(t in name for t in arguments.only)
        }

    context = multiprocessing.get_context("spawn")
    workers, gradients = {}, {}
    for name, way in ways.items():
        workers[name], theirs = context.Pipe()
        context.Process(target=_work, args=(theirs, way, setting), daemon=True).start()
        theirs.close()
        gradients[name] = workers[name].recv()
    times = {name: [] for name in ways}
    for _ in range(arguments.blocks):
        for name, worker in workers.items():
            worker.send(arguments.steps)
            times[name] += worker.recv()

    found = versions("tensorflow", "keras", *(["torch"] if arguments.peers else []))
    print(f"{setting}\n{processor()}, {', '.join(f'{name} {version}' for name, version in found.items())}\n")
    print("| | images/s | quartiles | times Keras | peak memory, GB | gradients differ by |")
    print("|---|---|---|---|---|---|")
    for name, worker in workers.items():
        worker.send(0)
        slow, median, fast = (setting.batch_size / np.percentile(times[name], q) for q in (75, 50, 25))
        ratio = np.median(times[MEASURE]) / np.median(times[name])
        difference = "" if gradients[name] is None else f"{_difference(gradients[name], gradients[MEASURE]):.0e}"
        row = [name, f"{median:.1f}", f"{slow:.1f}–{fast:.1f}", f"{ratio:.2f}", f"{worker.recv() / 1e9:.1f}"]
        print(f"| {' | '.join([*row, difference])} |")


def _difference(found, expected):
    found, expected = (np.concatenate([np.ravel(gradient) for gradient in g]) for g in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


if __name__ == "__main__":
    main()
