"""A model into a form for deployment, which keeps its name only if it agrees with the Keras model."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_convmixer import bundles, class_names, files
from keras_convmixer.cores import usable_cores
from keras_convmixer.data import decode
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.deployment import keras_export, runtimes, saved_model, tflite
from keras_convmixer.deployment.comparison import TOLERANCES, Comparison, Tolerance, compare
from keras_convmixer.deployment.prepare import in_float32, prepared
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.quiet import quiet_stderr

# format → the name of what is written; TFLite's depends on the quantization.
FORMATS = {"saved_model": "saved_model", "tflite": None, "onnx": "model.onnx", "openvino": "openvino"}
REPRESENTATIVE_IMAGES = 200
FILE_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class Report:
    """What was exported and how it compares with the Keras model.

    Attributes:
        path: the file or folder.
        format, quantize: as given to `export`.
        size: in bytes.
        threads: that it was run with; None for a SavedModel, which takes TensorFlow's.
        comparison: what was measured. tolerance: what it kept to.
    """

    path: Path
    format: str
    quantize: str
    size: int
    threads: int | None
    comparison: Comparison
    tolerance: Tolerance

    def as_json(self) -> str:
        """All of it; of the path the name alone, since the folder may be moved."""
        return json.dumps(dataclasses.asdict(self) | {"path": self.path.name}, indent=2)

    def as_table(self) -> str:
        """The figures as lines of text."""
        got, asked = self.comparison, self.tolerance
        of_threads = f", {self.threads} threads" if self.threads else ""
        rows = {
            "file": self.path,
            "size": f"{self.size / 1e6:.2f} MB",
            "compared on": f"{got.images} images",
            "max difference": f"{got.max_difference:.1e} of a probability (allowed: {asked.max_difference:.0e})",
            "top-1 agreement": f"{got.agreement:.2%} (at least {asked.agreement:.0%})",
            "latency": f"{got.latency_ms:.2f} ms an image{of_threads} (Keras: {got.keras_latency_ms:.2f} ms)",
        }
        return "\n".join(f"{name:<16} {value}" for name, value in rows.items())


def export(
    model: bundles.Bundle | keras.Model | str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    format: str = "saved_model",
    quantize: str = "none",
    data: str | os.PathLike | None = None,
    images: int = 256,
    features: bool = False,
    split: bool = True,
    tolerance: Tolerance | None = None,
    threads: int | None = None,
    allow_corrupt: bool = False,
) -> Report:
    """Writes a model for deployment, reloads it and compares it with the Keras model on held-out images.

    What is written is the model's `fold`. Beside it the folder gets `labels.txt` (a class name a line, in the
    order of the outputs), `preprocessing.json`, and a report as JSON, named after the model. The input is RGB in
    0–255, normalised inside; the outputs are `probabilities` and `logits`. For signatures see `saved_model.save`,
    `tflite.convert` and `keras_export.save`.

    Args:
        model, classes: what `load` takes: a folder, a name, a `keras.Model` with its class names...
        out: the folder to write into: `saved_model/`, `model.tflite`, `model_int8.tflite`, `model.onnx` and so on.
        format: "saved_model", "tflite", or with the extra of that name "onnx" or "openvino".
        quantize: "none", "float16", "dynamic" or "int8"; for TFLite only.
        data: what `--data` takes. Default: the data the model was trained on. The comparison is on its held-out
            images, or on all if none are held out; for int8, 200 training images (held-out ones where there are no
            others) set the activations' ranges.
        images: how many images to compare on, at most, spread evenly over the split.
        features: whether to give the last block's map too, as `features`; class activation maps need it.
        split: whether a TFLite file has depthwise kernels of more than 25 taps as sums of smaller ones, which is
            faster on CPUs (see `lite_graph`).
        tolerance: a `comparison.Tolerance`. Default: that of `TOLERANCES`.
        threads: to run it with, but for a SavedModel. Default: as many as there are processors.
        allow_corrupt: whether more than 1 % of the data's images may be unreadable.

    Returns:
        A `Report`; its `as_table()` is for people.

    Raises:
        ValueError: an argument is out of range, there is no data, or the model cannot be converted.
        ImportError: the format's extra is not installed.
        comparison.Disagreement: a ValueError: the export differs by more than the tolerance. In either case nothing
            new is left, and what stood under its name before still does.
    """
    path = Path(out) / _file_name(format, quantize)
    if images < 1:
        raise UserError(f"images must be at least 1, got {images}")
    if format in keras_export.NEEDS:
        keras_export.check_installed(format)
    if keras.backend.backend() != "tensorflow":
        raise UserError("export works with Keras on TensorFlow only; set KERAS_BACKEND=tensorflow")
    bundle = bundles.load(model, classes)
    dataset = open_data(bundle, data, allow_corrupt=allow_corrupt)
    # "all" is there where one split was made into two: with too few images for that, none are held out.
    nothing_held_out = "all" in dataset.splits and "validation" not in dataset.splits
    held_out = (dataset.split("all") if nothing_held_out else dataset.held_out()).spread(images)
    preprocessing = bundle.preprocessing
    tolerance = tolerance or TOLERANCES[quantize]
    reference = in_float32(bundle.model)
    if format == "saved_model":
        threads = None
    else:
        threads = threads or usable_cores()

    with files.replacing(path) as temporary:
        with quiet_stderr():
            if format == "tflite":
                training = dataset.training() if "train" in dataset.splits else held_out
                representative = _one_by_one(training.spread(REPRESENTATIVE_IMAGES), preprocessing)
                content = tflite.convert(
                    reference, preprocessing.input_size, quantize, representative, split=split, features=features
                )
                temporary.write_bytes(content)
                of_image = runtimes.open_tflite(temporary, threads)
            elif format == "saved_model":
                saved_model.save(prepared(reference, features=features), preprocessing, temporary)
                of_image, of_file = saved_model.load(temporary)
            else:
                keras_export.save(prepared(reference, features=features), temporary, format)
                opened = runtimes.open_onnx if format == "onnx" else runtimes.open_openvino
                of_image = opened(temporary, threads)
        pairs = ((image, image) for image in _one_by_one(held_out, preprocessing))
        found = compare(reference, of_image, pairs, len(held_out))
        found.check(tolerance, path.name)
        if format == "saved_model":
            pairs = _files(held_out.spread(FILE_IMAGES), preprocessing)
            if pairs:
                compare(reference, of_file, pairs, len(pairs)).check(tolerance, f"{path.name} (serve_bytes)")
        size = sum(file.stat().st_size for file in [temporary, *temporary.rglob("*")] if file.is_file())

    report = Report(path, format, quantize, size, threads, found, tolerance)
    labels = [class_names.display_name(name) for name in bundle.classes]
    files.write_text(path.parent / "labels.txt", "".join(f"{label}\n" for label in labels))
    files.write_text(path.parent / "preprocessing.json", preprocessing.to_json())
    files.write_text(path.with_suffix(".json"), report.as_json() + "\n")
    return report


def _file_name(format, quantize):
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    if quantize not in tflite.FILE_NAMES:
        raise UserError(f"unknown quantize {quantize!r}; known: {', '.join(tflite.FILE_NAMES)}")
    if format == "tflite":
        return tflite.FILE_NAMES[quantize]
    if quantize != "none":
        raise UserError(f'quantize {quantize!r} is for format "tflite"; {format} is float32')
    return FORMATS[format]


def _one_by_one(images, preprocessing):
    return (image for image, _ in evaluation_batches(images, preprocessing, 1).as_numpy_iterator())


def _files(images, preprocessing):
    """Pairs of a preprocessed image and its file's content, for those that a SavedModel can decode."""
    contents = [images.encoded(tf.constant(i, tf.int64)).numpy() for i in range(len(images))]
    return [
        (image, content)
        for image, content in zip(_one_by_one(images, preprocessing), contents)
        if content.startswith((decode.JPEG, decode.PNG))
    ]
