"""Every form of a model, each as a function from images to logits in a process of its own.

A process of its own keeps the runtimes' thread pools apart and shows the memory that each takes. What is loaded
lies in a folder that `benchmark` fills.
"""

import os
import re
import time
from pathlib import Path

import numpy as np

from keras_convmixer.errors import first_line
from keras_convmixer.exported.runtimes import open_onnx, open_openvino, open_tflite

# what `serve` says when a form is loaded
READY = "ready"


def serve(connection, form, folder, threads):
    """Says `READY`, then answers batches of images with `(seconds, logits, peak memory in bytes)`.

    None is the end. Whatever goes wrong is answered with its text, once, and is the end too.
    """
    if not os.environ.get("CONVMIXER_TRACEBACK"):
        # What goes wrong is answered; the rest is what runtimes have to say of themselves.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        run = FORMS[form](Path(folder), threads)
        connection.send(READY)
        while (images := connection.recv()) is not None:
            start = time.perf_counter()
            logits = run(images)
            seconds = time.perf_counter() - start
            connection.send((seconds, np.asarray(logits, np.float32), peak_memory()))
    except Exception as error:  # A peer may fail in any way; the others are measured all the same.
        connection.send(not_available(error))


def not_available(error):
    """What a report says of a form that something went wrong with."""
    return f"not available: {type(error).__name__}: {first_line(error)}"


def peak_memory():
    """The largest resident memory of this process so far, in bytes; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def _tensorflow(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return tf


def _keras(folder, threads, name="model.keras"):
    tf = _tensorflow(threads)
    import keras

    model = keras.saving.load_model(folder / name, compile=False)
    in_graph = tf.function(lambda images: model(images, training=False), autograph=False)
    return lambda images: in_graph(tf.constant(images)).numpy()


def _folded(folder, threads):
    return _keras(folder, threads, "folded.keras")


def _saved_model(folder, threads):
    tf = _tensorflow(threads)
    serving = tf.saved_model.load(folder / "saved_model").signatures["serving_default"]
    return lambda images: serving(images=tf.constant(images))["logits"].numpy()


def _tflite(name):
    def load(folder, threads):
        run = open_tflite(folder / name, threads)
        return lambda images: run(images)["logits"]

    return load


def _onnx(name):
    def load(folder, threads):
        run = open_onnx(folder / name, threads)
        return lambda images: run(images)["logits"]

    return load


def _openvino(name, precision="f32"):
    def load(folder, threads):
        run = open_openvino(folder / name, threads, precision)
        return lambda images: run(images)["logits"]

    return load


def _timm(compiled=False, bfloat16=False):
    def load(folder, threads):
        import json

        import timm
        import torch
        from safetensors.torch import load_file

        torch.set_num_threads(threads)
        sizes = json.loads((folder / "sizes.json").read_text())
        mean, std = (torch.tensor(sizes.pop(name)).view(1, 3, 1, 1) for name in ("mean", "std"))
        act_layer = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}[sizes.pop("activation")]
        model = timm.models.convmixer.ConvMixer(act_layer=act_layer, **sizes)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        model = model.eval().to(memory_format=torch.channels_last)
        forward = torch.compile(model) if compiled else model

        def run(images):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                # Images come channels last already: this permutes no memory.
                pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
                return forward((pixels / 255 - mean) / std).float().numpy()

        return run

    return load


# form → what loads it from a folder
OURS = {
    "keras": _keras,
    "folded": _folded,
    "saved_model": _saved_model,
    "tflite": _tflite("model.tflite"),
    "tflite_float16": _tflite("model_float16.tflite"),
    "tflite_dynamic": _tflite("model_dynamic.tflite"),
    "tflite_int8": _tflite("model_int8.tflite"),
}
STOCK = {f"stock_{form}": _tflite(f"stock_{form}.tflite") for form in ("tflite", "tflite_dynamic", "tflite_int8")}
# form → its loader and the modules that it needs
PEERS = {
    "onnx": (_onnx("model.onnx"), ("onnx", "onnxruntime")),
    "onnx_int8": (_onnx("model_int8.onnx"), ("onnx", "onnxruntime")),
    "openvino": (_openvino("openvino"), ("onnx", "openvino")),
    "openvino_bfloat16": (_openvino("openvino", "bf16"), ("onnx", "openvino")),
    "openvino_int8": (_openvino("openvino_int8"), ("onnx", "openvino")),
    "timm": (_timm(), ("timm", "torch")),
    "timm_compiled": (_timm(compiled=True), ("timm", "torch")),
    "timm_bfloat16": (_timm(bfloat16=True), ("timm", "torch")),
}
FORMS = OURS | STOCK | {form: loader for form, (loader, _) in PEERS.items()}
# whose versions stand beside the figures
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "torch", "timm")
