"""A model into a form for deployment, which keeps its name only if it agrees with the Keras model."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_convmixer import bundles, class_names, files
from keras_convmixer.data import decode
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.deployment import keras_export, runtimes, saved_model, tflite
from keras_convmixer.deployment.comparison import TOLERANCES, Comparison, Tolerance, compare
from keras_convmixer.deployment.prepare import in_float32, prepared
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.machine import usable_cores
from keras_convmixer.reports import Report

# format → the name of what is written; TFLite's depends on the quantization.
FORMATS = {"saved_model": "saved_model", "tflite": None, "onnx": "model.onnx", "openvino": "openvino"}
REPRESENTATIVE_IMAGES = 200
FILE_IMAGES = 32
# Agreement on fewer images says next to nothing.
FEW_IMAGES = 20


@dataclasses.dataclass(frozen=True)
class Exported(Report):
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

    def summary(self) -> dict:
        """All of it; of the path the name alone, since the folder may be moved."""
        return dataclasses.asdict(self) | {"path": self.path.name}

    def lines(self) -> list[str]:
        got, asked = self.comparison, self.tolerance
        limit = "any" if asked.max_difference is None else f"{asked.max_difference:.0e}"
        few = f": too few to tell, {FEW_IMAGES} or more would do" if got.images < FEW_IMAGES else ""
        of_threads = f", {self.threads} threads" if self.threads else ""
        rows = {
            "file": self.path,
            "size": f"{self.size / 1e6:.2f} MB",
            "compared on": f"{got.images} images{few}",
            "top-1 agreement": f"{got.agreement:.2%} of them with Keras's class (at least {asked.agreement:.0%})",
            "max difference": f"{got.max_difference:.1e} of a probability from Keras's (allowed: {limit})",
            "latency": f"{got.latency_ms:.2f} ms an image{of_threads} (Keras: {got.keras_latency_ms:.2f} ms)",
        }
        return [f"{name:<16} {value}" for name, value in rows.items()]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes it as JSON into a folder, named after the exported file."""
        files.write_text(Path(folder) / f"{self.path.name}.json", self.as_json() + "\n")


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What `export` was asked for, with the same names."""

    format: str
    quantize: str
    features: bool
    split: bool
    threads: int | None

    def __post_init__(self):
        if self.format not in FORMATS:
            raise UserError(f"unknown format {self.format!r}; known: {', '.join(FORMATS)}")
        if self.quantize not in tflite.FILE_NAMES:
            raise UserError(f"unknown quantize {self.quantize!r}; known: {', '.join(tflite.FILE_NAMES)}")
        if self.quantize != "none" and self.format != "tflite":
            raise UserError(f'quantize {self.quantize!r} is for format "tflite"; {self.format} is float32')
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads must be at least 1, got {self.threads}")
        if self.format in keras_export.NEEDS:
            keras_export.check_installed(self.format)
        if keras.backend.backend() != "tensorflow":
            raise UserError("export works with Keras on TensorFlow only; set KERAS_BACKEND=tensorflow")

    @property
    def file_name(self):
        return FORMATS[self.format] or tflite.FILE_NAMES[self.quantize]


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
) -> Exported:
    """Writes a model for deployment, reloads it and compares it with the Keras model on held-out images.

    What is written is the model's `fold`. Beside it the folder gets `labels.txt` (a class name a line, in the order
    of the outputs), `preprocessing.json`, and the report as JSON, named after the file. The input is RGB in 0–255,
    normalised inside; the outputs are `probabilities` and `logits`. For signatures see `saved_model.save`,
    `tflite.convert` and `keras_export.save`. What native code writes to file descriptor 2 on the way is left alone.

    Args:
        model, classes: what `load` takes: a folder, a name, a `keras.Model` with its class names...
        out: the folder to write into: `saved_model/`, `model.tflite`, `model_int8.tflite`, `model.onnx` and so on.
        format: "saved_model", "tflite", or with the extra of that name "onnx" or "openvino".
        quantize: "none", "float16", "dynamic" or "int8"; for TFLite only.
        data: what `--data` takes. Default: the data the model was trained on. The comparison is on its held-out
            images, or on all if none are held out; 200 training images, where there are any, set int8's ranges.
        images: how many to compare on, at most, spread evenly over the split. Of fewer than 20 a warning is given.
        features: whether to give the last block's map too, as `features`; class activation maps need it.
        split: whether a TFLite file has large depthwise kernels as sums of smaller ones, see `lite_graph`.
        tolerance: a `comparison.Tolerance`. Default: that of `TOLERANCES`.
        threads: to run it with, but for a SavedModel. Default: as many as there are processors.
        allow_corrupt: whether more than 1 % of the data's images may be unreadable.

    Raises:
        ValueError: an argument is out of range, there is no data, the model cannot be converted, or the export
            differs by more than the tolerance (`comparison.Disagreement`). ImportError: the format's extra is not
            installed. In either case nothing new is left, and what stood under its name before still does.
    """
    choice = _Choice(format, quantize, features, split, threads)
    if images < 1:
        raise UserError(f"images must be at least 1, got {images}")
    bundle = bundles.load(model, classes)
    dataset = open_data(bundle, data, allow_corrupt=allow_corrupt)
    return _export(bundle, Path(out), choice, dataset, images, tolerance)


def _export(bundle, out, choice, dataset, count, tolerance):
    # "all" is there where one split was made into two: with too few images for that, none are held out.
    nothing_held_out = "all" in dataset.splits and "validation" not in dataset.splits
    held_out = (dataset.split("all") if nothing_held_out else dataset.held_out()).spread(count)
    training = dataset.training() if "train" in dataset.splits else held_out
    tolerance = tolerance or TOLERANCES[choice.quantize]
    threads = None if choice.format == "saved_model" else choice.threads or usable_cores()
    path, reference = out / choice.file_name, in_float32(bundle.model)
    with files.replacing(path) as temporary:
        _write(reference, bundle.preprocessing, choice, training, temporary)
        found = _compared(reference, bundle.preprocessing, choice.format, threads, held_out, temporary)
        for name, comparison in found.items():
            comparison.check(tolerance, f"{path.name}{name}")
        size = sum(file.stat().st_size for file in [temporary, *temporary.rglob("*")] if file.is_file())
    report = Exported(path, choice.format, choice.quantize, size, threads, found[""], tolerance)
    if len(held_out) < FEW_IMAGES:
        warnings.warn(f"{path.name} was compared on {len(held_out)} images alone: too few to tell", stacklevel=3)
    labels = [class_names.display_name(name) for name in bundle.classes]
    files.write_text(out / "labels.txt", "".join(f"{label}\n" for label in labels))
    files.write_text(out / "preprocessing.json", bundle.preprocessing.to_json())
    report.save(out)
    return report


def _write(model, preprocessing, choice, training, path):
    """Writes a float32 model in the form that was chosen. Images of `training` set int8's ranges."""
    if choice.format == "tflite":
        representative = _one_by_one(training.spread(REPRESENTATIVE_IMAGES), preprocessing)
        options = {"split": choice.split, "features": choice.features}
        path.write_bytes(
            tflite.convert(model, preprocessing.input_size, choice.quantize, representative, **options)
        )
    elif choice.format == "saved_model":
        saved_model.save(prepared(model, features=choice.features), preprocessing, path)
    else:
        keras_export.save(prepared(model, features=choice.features), path, choice.format)


def _compared(model, preprocessing, format, threads, images, path):
    """The `Comparison` of what was written with the model, under ""; for a SavedModel that of image files too."""
    if format == "saved_model":
        of_image, of_file = saved_model.load(path)
    else:
        of_image = runtimes.OPENERS[format](path, threads)
    pairs = ((image, image) for image in _one_by_one(images, preprocessing))
    found = {"": compare(model, of_image, pairs, len(images))}
    pairs = _files(images.spread(FILE_IMAGES), preprocessing) if format == "saved_model" else []
    return found | ({" (serve_bytes)": compare(model, of_file, pairs, len(pairs))} if pairs else {})


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
