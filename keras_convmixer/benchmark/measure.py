"""How fast every form of a model is on this machine, how large, and how well it agrees with the Keras model."""

import contextlib
import importlib.util
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_convmixer import bundles
from keras_convmixer.benchmark.forms import OURS, PEERS, STOCK, serve
from keras_convmixer.benchmark.report import BATCHES, Benchmark, Row
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.deployment import converter, keras_export, saved_model, tflite
from keras_convmixer.deployment.fold import fold
from keras_convmixer.deployment.prepare import in_float32, prepared
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.machine import processor, usable_cores, versions
from keras_convmixer.parts import architecture
from keras_convmixer.progress import Progress
from keras_convmixer.variants import VARIANTS, create_model, get_variant
from keras_convmixer.weights.state_dict import save_torch

WARM_UP = 2
REPRESENTATIVE_IMAGES = 100
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "torch", "timm")


def benchmark(models, *, classes=None, peers=False, data=None, images=64, rounds=10, threads=None):
    """Measures every form of some models, all on the same images.

    Each form runs in a process of its own, and the forms take turns, so that what slows the machine for a while
    slows all of them.

    Args:
        models: what `load` takes, or a list of such. But a name of `list_models()` stands for random weights: speed
            does not depend on them, and nothing is downloaded.
        classes: class names, where `load` needs them.
        peers: whether to measure also TFLite as the stock converter makes it from the plain model, and those of
            ONNX Runtime, OpenVINO and timm (eager, compiled, bfloat16) that are installed.
        data: what `--data` takes, for the images. Default: the data a folder's model was trained on; for random
            weights noise.
        images: how many images to compare the forms on.
        rounds: how often each form is timed at each batch size, after two rounds that are not counted.
        threads: that each runtime may use. Default: as many as there are cores.

    Returns:
        A `Benchmark`.

    Raises:
        ValueError: a number is below 1, or a model is not a ConvMixer of this package.
    """
    threads = threads or usable_cores()
    for name, value in {"images": images, "rounds": rounds, "threads": threads}.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    models = models if isinstance(models, (list, tuple)) else [models]
    bundles_ = [_opened(model, classes) for model in models]
    rows = [row for opened in bundles_ for row in _measured(*opened, peers, data, images, rounds, threads)]
    return Benchmark(tuple(rows), {"processor": processor(), "threads": threads} | versions(*PACKAGES))


def _opened(model, classes):
    """A name and a `Bundle` for what `benchmark` takes."""
    is_name = isinstance(model, (str, Path)) and not Path(model).exists() and str(model) in VARIANTS
    if is_name:
        plain = create_model(model, classifier_activation=None)
        numbers = tuple(map(str, range(plain.output_shape[-1])))
        return str(model), bundles.Bundle(plain, get_variant(model).preprocessing, numbers)
    bundle = bundles.load(model, classes)
    return (bundle.path.name if bundle.path else bundle.model.name), bundle


def _measured(name, bundle, peers, data, count, rounds, threads):
    pixels, representative = _images(bundle, data, count)
    absent = {
        form: f"not installed: {', '.join(missing)}"
        for form, (_, needs) in PEERS.items()
        if peers and (missing := [need for need in needs if importlib.util.find_spec(need) is None])
    }
    forms = [*OURS, *((*STOCK, *PEERS) if peers else ())]
    forms = [form for form in forms if form not in absent]
    with tempfile.TemporaryDirectory() as folder:
        written = _write(bundle, representative, Path(folder), forms)
        sizes = {form: _size(written[form]) for form in forms if form in written}
        with _Workers(forms, folder, threads) as workers:
            logits = {form: workers.logits(form, pixels) for form in forms}
            times = workers.times(pixels, rounds, name)
            rows = [_row(name, form, logits, times, sizes, workers) for form in forms]
    return rows + [Row(name, form, {}, {}, error=error) for form, error in absent.items()]


def _images(bundle, data, count):
    """Images to compare on, and others to set int8 ranges by."""
    if bundle.path or data:
        dataset = open_data(bundle, data)
        training = dataset.training() if "train" in dataset.splits else dataset.held_out()
        sources = (dataset.held_out(), count), (training, REPRESENTATIVE_IMAGES)
        batches = [
            evaluation_batches(images.spread(n), bundle.preprocessing, n).as_numpy_iterator()
            for images, n in sources
        ]
        return tuple(next(batch)[0] for batch in batches)
    rng = np.random.default_rng(0)
    shape = (*bundle.preprocessing.input_size, 3)
    return tuple(rng.integers(0, 256, (n, *shape)).astype("float32") for n in (count, 8))


def _write(bundle, representative, folder, forms):
    """Fills a folder with what the forms are loaded from. Returns form → file or folder."""
    plain, size = in_float32(bundle.model), bundle.preprocessing.input_size
    one_by_one = [image[None] for image in representative]
    written = {form: folder / f"{form}.tflite" for form in forms if form.startswith("stock_")}
    written |= {
        "keras": folder / "model.keras",
        "folded": folder / "folded.keras",
        "saved_model": folder / "saved_model",
    }
    plain.save(written["keras"])
    fold(plain).save(written["folded"])
    handed_over, unfolded = prepared(plain), prepared(plain, folded=False)
    saved_model.save(handed_over, bundle.preprocessing, written["saved_model"])
    for quantize, file_name in tflite.FILE_NAMES.items():
        form = "tflite" if quantize == "none" else f"tflite_{quantize}"
        written[form] = folder / file_name
        written[form].write_bytes(tflite.convert(plain, size, quantize, one_by_one))
        stock = written.get(f"stock_{form}")
        if stock:
            stock.write_bytes(converter.convert(unfolded, size, quantize, one_by_one))
    if "onnx" in forms:
        written["onnx"] = folder / "model.onnx"
        keras_export.save(handed_over, written["onnx"], "onnx")
    if "openvino" in forms:
        written |= dict.fromkeys(("openvino", "openvino_bfloat16"), folder / "openvino")
        keras_export.save(handed_over, written["openvino"], "openvino")
    if "timm" in forms:
        written |= dict.fromkeys(("timm", "timm_compiled", "timm_bfloat16"), folder / "model.safetensors")
        save_torch(plain, written["timm"])
        sizes = architecture(plain)
        names = ("dim", "depth", "kernel_size", "patch_size", "activation", "mean", "std")
        sizes = {name: sizes[name] for name in names} | {"num_classes": plain.output_shape[-1]}
        (folder / "sizes.json").write_text(json.dumps(sizes))
    return written


class _Workers:
    """A process for each form. One that fails says why in `errors` and is not asked again."""

    def __init__(self, forms, folder, threads):
        context = multiprocessing.get_context("spawn")
        self.errors, self.memory, self._ends, self._processes = {}, {}, {}, []
        for form in forms:
            self._ends[form], other = context.Pipe()
            self._processes.append(context.Process(target=serve, args=(other, form, folder, threads)))
            self._processes[-1].start()
            other.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self._ends.values():
            try:
                end.send(None)
            except OSError:
                continue  # It has ended already.
        for process in self._processes:
            process.join(30)
            process.kill()

    def run(self, form, images):
        """Seconds and logits of a batch, or None if the form has failed."""
        if form in self.errors:
            return None
        end = self._ends[form]
        with contextlib.suppress(OSError):  # A process that failed has closed its end, but left word.
            end.send(images)
        try:
            answer = end.recv()
        except (EOFError, OSError):
            answer = "its process ended"
        if isinstance(answer, str):
            self.errors[form] = answer
            return None
        seconds, logits, self.memory[form] = answer
        return seconds, logits

    def logits(self, form, images):
        parts = [self.run(form, images[i : i + 8]) for i in range(0, len(images), 8)]
        return None if None in parts else np.concatenate([logits for _, logits in parts])

    def times(self, images, rounds, name):
        """Form → batch size → seconds of each round."""
        times = {form: {batch: [] for batch in BATCHES} for form in self._ends}
        with Progress(f"{name}: timing round", rounds + WARM_UP) as progress:
            for i in range(rounds + WARM_UP):
                for form in self._ends:
                    for batch in BATCHES:
                        result = self.run(form, np.resize(images, (batch, *images.shape[1:])))
                        if result and i >= WARM_UP:
                            times[form][batch].append(result[0])
                    # Some runtimes' threads stay awake for a while.
                    time.sleep(0.02)
                progress.update()
        return times


def _row(name, form, logits, times, sizes, workers):
    if form in workers.errors:
        return Row(name, form, {}, {}, error=workers.errors[form])
    reference, own = logits["keras"], logits[form]
    quartiles = {batch: np.percentile(seconds, (25, 50, 75)) for batch, seconds in times[form].items()}
    return Row(
        name,
        form,
        {batch: float(batch / middle) for batch, (_, middle, _) in quartiles.items()},
        {batch: float((high - low) / middle) for batch, (low, middle, high) in quartiles.items()},
        sizes.get(form),
        workers.memory[form],
        float(np.mean(own.argmax(1) == reference.argmax(1))),
        float(np.abs(own - reference).max() / np.ptp(reference)),
    )


def _size(path):
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
