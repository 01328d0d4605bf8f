"""An exported file as something to predict with and to evaluate, as its users will run it."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_convmixer import bundles, class_names, files
from keras_convmixer.errors import UserError, first_line
from keras_convmixer.exported import companions, runtimes
from keras_convmixer.machine import usable_cores
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.progress import Progress

# of a probability that a file rounds to 0
LEAST = np.finfo("float32").tiny


class Runner:
    """What `predict` and `evaluate` need of a Keras model, computed by a function as `runtimes` gives."""

    def __init__(self, run):
        self._run = run

    def predict_on_batch(self, images):
        """Logits `(batch, classes)`; where the file gives probabilities alone, their logarithms."""
        given = self._run(np.asarray(images, np.float32))
        return given["logits"] if "logits" in given else np.log(np.maximum(given["probabilities"], LEAST))

    def predict(self, batches, verbose="auto"):
        """Logits of all images of some batches."""
        logits = []
        with Progress("evaluating", delay=3.0 if verbose else math.inf) as progress:
            for images in batches:
                logits.append(self.predict_on_batch(images))
                progress.update(len(images))
        return np.concatenate(logits)


@dataclasses.dataclass(frozen=True)
class ExportedBundle:
    """An exported file with what it takes to use it, as a `Bundle` of which nothing but predictions can be had.

    Attributes:
        model: its `Runner`. preprocessing: how an image file becomes its input.
        classes: class names in the order of the outputs.
        path: None, since there is no model folder.
    """

    model: Runner
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    path: None = None


def load(
    model: "bundles.Bundle | ExportedBundle | keras.Model | str | os.PathLike",
    classes: Sequence[str] | str | os.PathLike | None = None,
) -> "bundles.Bundle | ExportedBundle":
    """Makes something to predict with of whatever stands for a model.

    Args:
        model: what `bundles.load` takes: a model folder, the name of a published model, a `keras.Model` or its
            `.keras` file, a `Bundle`; or what `export` wrote: a `.tflite` or `.onnx` file, or the folder of a
            SavedModel or of OpenVINO's model. An exported file says what its classes are and how it takes images
            in itself (TFLite's does), or by `labels.txt` and `input.json` beside it.
        classes: class names in the order of the outputs, or the path of a file with one a line. They go before
            those that a folder, a file or a `Bundle` has. A Keras model needs them, unless it has 1,000 outputs:
            these are then taken for ImageNet's.

    Returns:
        A `Bundle`, whose model ends in logits; of an exported file an `ExportedBundle`.

    Raises:
        FileNotFoundError: there is no such folder, file or variant, or a file is missing there.
        ValueError: a file is not what it should be, or the model not one that can be used, or its classes have no
            names or not as many as it has outputs. ImportError: an exported file's runtime is not installed.
    """
    if isinstance(model, ExportedBundle):
        return model if classes is None else dataclasses.replace(model, classes=class_names.listed(classes))
    path = files.expanded(model) if isinstance(model, (str, os.PathLike)) else None
    format = path and format_of(path)
    if not format:
        return bundles.load(model, classes)
    names = companions.labels(path) if classes is None else class_names.listed(classes)
    preprocessing = companions.preprocessing(path)
    try:
        run = runtimes.OPENERS[format](path, usable_cores())
        given = run(np.zeros((1, *preprocessing.input_size, 3), "float32"))
    except (ImportError, OSError):
        raise
    except Exception as error:  # Each runtime has errors of its own.
        raise UserError(f"{path} cannot be run: {first_line(error)}") from error
    if "probabilities" not in given:
        raise UserError(f"{path} gives {', '.join(given)}: expected a file that `export` wrote, with probabilities")
    outputs = given["probabilities"].shape[-1]
    if outputs != len(names):
        raise UserError(f"{path} has {outputs} outputs, and there are {len(names)} labels: give one for each")
    return ExportedBundle(Runner(run), preprocessing, names)


def check_beside(path: Path, bundle) -> None:
    """Raises UserError where another model's export lies beside a path: labels.txt would be that of both."""
    for other in sorted(path.parent.glob("*")):
        if other == path or not format_of(other):
            continue
        with contextlib.suppress(FileNotFoundError):  # What says nothing of itself was not exported here.
            if not companions.are_of(other, bundle):
                raise UserError(
                    f"{path.parent} holds the export of another model, {other.name}: give another --out"
                )


def format_of(path: Path):
    """The format of an exported file or folder; None for what is none."""
    if path.is_dir():
        marks = {"saved_model.pb": "saved_model", "model.xml": "openvino"}
        return next((format for name, format in marks.items() if (path / name).is_file()), None)
    return {".tflite": "tflite", ".onnx": "onnx"}.get(path.suffix) if path.is_file() else None
