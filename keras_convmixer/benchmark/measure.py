"""How fast every form of a model is on this machine, how large, and how well it agrees with the Keras model."""

import dataclasses
import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from keras_convmixer import bundles
from keras_convmixer.benchmark.forms import OURS, PACKAGES, PEERS, STOCK
from keras_convmixer.benchmark.report import BATCHES, Benchmark, Row
from keras_convmixer.benchmark.workers import Workers
from keras_convmixer.benchmark.written import write
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.machine import processor, usable_cores, versions
from keras_convmixer.variants import VARIANTS, create_model, get_variant

REPRESENTATIVE_IMAGES = 100


def benchmark(models, *, classes=None, peers=False, data=None, images=64, rounds=10, seconds=60, threads=None):
    """Measures every form of some models, all on the same images.

    Each form runs in a process of its own, and the forms take turns, so that what slows the machine for a while
    slows all of them.

    Args:
        models: what `load` takes, or a list of such. But a name of `list_models()` stands for random weights: speed
            does not depend on them, and nothing is downloaded.
        classes: class names, where `load` needs them.
        peers: whether to measure also TFLite as the stock converter makes it from the plain model, and those of
            ONNX Runtime, OpenVINO and timm (eager, compiled, bfloat16) that are installed. One that cannot be
            imported or made is named with the reason.
        data: what `--data` takes, for the images. Default: the data a folder's model was trained on; for random
            weights noise.
        images: how many images to compare the forms on.
        rounds: how often each form is timed at each batch size, after two rounds that are not counted.
        seconds: that a form may take for all that, from its second batch on. A slower one is compared on fewer
            images and timed in fewer rounds, at least one, and its row says so.
        threads: that each runtime may use. Default: as many as there are cores.

    Returns:
        A `Benchmark`.

    Raises:
        ValueError: a number is below 1, or a model is not a ConvMixer of this package.
    """
    threads = usable_cores() if threads is None else threads
    for name, value in {"images": images, "rounds": rounds, "seconds": seconds, "threads": threads}.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    models = models if isinstance(models, (list, tuple)) else [models]
    bundles_ = _with_names_of_their_own(models, [_opened(model, classes) for model in models])
    settings = _Settings(peers, data, images, rounds, seconds, threads)
    rows = [row for opened in bundles_ for row in _measured(*opened, settings)]
    return Benchmark(tuple(rows), {"processor": processor(), "threads": threads} | versions(*PACKAGES))


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What `benchmark` was asked for, with the same names."""

    peers: bool
    data: str | None
    images: int
    rounds: int
    seconds: float
    threads: int


def _opened(model, classes):
    """A name and a `Bundle` for what `benchmark` takes."""
    is_name = isinstance(model, (str, Path)) and not Path(model).exists() and str(model) in VARIANTS
    if is_name:
        plain = create_model(model, classifier_activation=None)
        numbers = tuple(map(str, range(plain.output_shape[-1])))
        return str(model), bundles.Bundle(plain, get_variant(model).preprocessing, numbers)
    bundle = bundles.load(model, classes)
    return (bundle.path.name if bundle.path else bundle.model.name), bundle


def _with_names_of_their_own(models, opened):
    """Models called alike, as `runs/a/best` and `runs/b/best`, by the path that was given, or else numbered."""
    names = [name for name, _ in opened]
    given = [str(model) if isinstance(model, (str, Path)) else name for model, name in zip(models, names)]
    names = [path if names.count(name) > 1 else name for name, path in zip(names, given)]
    numbered = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return [(name, bundle) for name, (_, bundle) in zip(numbered, opened)]


def _measured(name, bundle, settings):
    pixels, representative = _images(bundle, settings.data, settings.images)
    absent = {
        form: f"not installed: {', '.join(missing)}"
        for form, (_, needs) in PEERS.items()
        if settings.peers and (missing := [need for need in needs if not _is_installed(need)])
    }
    forms = [*OURS, *((*STOCK, *PEERS) if settings.peers else ())]
    forms = [form for form in forms if form not in absent]
    with tempfile.TemporaryDirectory() as folder:
        written, errors = write(name, bundle, representative, Path(folder), forms)
        sizes = {form: _size(path) for form, path in written.items()}
        with Workers(name, written, folder, settings.threads, settings.seconds) as workers:
            logits = workers.logits(pixels)
            times = workers.times(pixels, settings.rounds)
            rows = [_row(name, form, logits, times, sizes, workers, settings) for form in written]
    return rows + [Row(name, form, {}, {}, error=error) for form, error in (errors | absent).items()]


def _is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # its import was begun and given up
        return False


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


def _row(name, form, logits, times, sizes, workers, settings):
    error = workers.errors.get(form) or ("keras" in workers.errors and "nothing to compare with: keras failed")
    if error:
        return Row(name, form, {}, {}, error=error)
    count, rounds = min(len(logits[form]), len(logits["keras"])), len(times[form][BATCHES[0]])
    reference, own = logits["keras"][:count], logits[form][:count]
    less = {"rounds": (rounds, settings.rounds), "images": (count, settings.images)}
    less = [f"{done} of {asked} {what}" for what, (done, asked) in less.items() if done < asked]
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
        cut_short=", ".join(less) or None,
    )


def _size(path):
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
