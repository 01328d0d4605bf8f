"""A model into a form for deployment, which keeps its name only if it agrees with the Keras model."""

import dataclasses
import os
import warnings
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_convmixer import bundles, files
from keras_convmixer.data import datasets, decode
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.deployment import comparison, lite_metadata, onnx_file, saved_model, tflite
from keras_convmixer.deployment.comparison import TOLERANCES, Tolerance
from keras_convmixer.deployment.prepare import in_float32, prepared
from keras_convmixer.deployment.report import FEW_IMAGES, Exported
from keras_convmixer.errors import UserError
from keras_convmixer.exported import companions, loaded, runtimes
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.machine import usable_cores
from keras_convmixer.web import site, written

# format → quantization → the name of what is written. The page of "web" runs a TFLite file.
FORMATS = {"saved_model": {"none": "saved_model"}, "tflite": tflite.FILE_NAMES, **onnx_file.FILE_NAMES}
WEB = "web"
REPRESENTATIVE_IMAGES = 200
FILE_IMAGES = 32
NOT_STATED = "not stated"


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What `export` was asked for, with the same names."""

    format: str
    quantize: str
    input_type: str | None
    logits: bool
    features: bool
    split: bool
    author: str
    license: str
    threads: int | None

    def __post_init__(self):
        if self.format not in FORMATS:
            raise UserError(f"unknown format {self.format!r}; known: {', '.join([*FORMATS, WEB])}")
        if self.quantize not in tflite.FILE_NAMES:
            raise UserError(f"unknown quantize {self.quantize!r}; known: {', '.join(tflite.FILE_NAMES)}")
        if self.quantize not in FORMATS[self.format]:
            possible = " or ".join(FORMATS[self.format])
            raise UserError(f"quantize {self.quantize!r} is not for {self.format}, which takes {possible}")
        possible = ("uint8", "float32") if (self.format, self.quantize) == ("tflite", "int8") else ("float32",)
        if self.input_type not in (None, *possible):
            raise UserError(
                f"input_type {self.input_type!r} is not for {self.format} with quantize {self.quantize!r}, "
                f"which takes {' or '.join(possible)}"
            )
        if self.format != "tflite" and {self.author, self.license} != {NOT_STATED}:
            raise UserError(f'author and license are for format "tflite"; {self.format} has no place for them')
        if self.format != "tflite" and not self.split:
            raise UserError(f'split=False (--no-split) is for format "tflite": {self.format} has whole kernels')
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads must be at least 1, got {self.threads}")
        if self.format in onnx_file.NEEDS:
            onnx_file.check_installed(self.format)
        if keras.backend.backend() != "tensorflow":
            raise UserError("export works with Keras on TensorFlow only; set KERAS_BACKEND=tensorflow")
        if keras.config.image_data_format() != "channels_last":
            raise UserError(
                'export takes a model whose images are "channels_last": call '
                'keras.config.set_image_data_format("channels_last") before the model is built or loaded'
            )

    @property
    def file_name(self):
        return FORMATS[self.format][self.quantize]


def export(
    model: bundles.Bundle | keras.Model | str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    format: str = "saved_model",
    quantize: str = "none",
    data: str | os.PathLike | None = None,
    images: int = 256,
    compare: bool = True,
    input_type: str | None = None,
    logits: bool = False,
    features: bool = False,
    split: bool = True,
    author: str = NOT_STATED,
    license: str = NOT_STATED,
    tolerance: Tolerance | None = None,
    threads: int | None = None,
    allow_corrupt: bool = False,
) -> Exported:
    """Writes a model for deployment, reloads it and compares it with the Keras model on held-out images.

    What is written is the model's `fold`. Beside it the folder gets `labels.txt` (a class name a line, in the order
    of the outputs), `input.json` (what to do with an image before the model gets it), and the report as JSON, named
    after the file. A TFLite file has the first two inside as well, and metadata by which stock applications take
    it (see `lite_metadata`). The input is RGB in 0–255, normalised inside; the output is `probabilities`, and but
    for TFLite `logits` too: see `saved_model.save`, `tflite.convert` and `onnx_graph`.

    Args:
        model, classes: what `load` takes: a folder, a name, a `keras.Model` with its class names...
        out: the folder to write into: `saved_model/`, `model.tflite`, `model_int8.tflite`, `model.onnx` and so on.
            It may hold other forms of the same model.
        format: "saved_model", "tflite", or with the extra of that name "onnx" or "openvino"; "web" is a TFLite file
            with `features` and around it the page that classifies with it in a browser, see `web.site`. The page
            offers all `.tflite` files of the folder.
        quantize: "none", "float16", "dynamic" or "int8" for TFLite and the page, "none" or "int8" for ONNX and
            OpenVINO.
        data: what `--data` takes, or a folder or an archive of photographs without classes. Default: the data the
            model was trained on. The comparison is on its held-out images, or on all if none are held out; 200
            training images, where there are any, set int8's ranges.
        images: how many to compare on, at most, spread evenly over the split. Of fewer than 20 a warning is given.
        compare: whether to compare at all. Without that no data is looked at, but for int8's ranges.
        input_type: what a TFLite file in int8 takes for images, "uint8" (the default) or "float32".
        logits: whether a TFLite file is to give the `logits` too.
        features: whether to give the last block's map too, as `features`; class activation maps need it.
        split: whether a TFLite file has large depthwise kernels as sums of smaller ones, see `lite_graph`.
        author, license: of the model, for a TFLite file's metadata.
        tolerance: a `comparison.Tolerance`. Default: that of `TOLERANCES`.
        threads: to run it with, but for a SavedModel. Default: as many as there are processors.
        allow_corrupt: whether more than 1 % of the data's images may be unreadable.

    Raises:
        ValueError: an argument is out of range, `out` holds the export of another model (by its classes and its
            preprocessing) or another web page, there is no data, the model cannot be converted, or the export
            differs by more than the tolerance (`comparison.Disagreement`). ImportError: the format's extra is not
            installed. Nothing new is left then, and what stood under its name before still does.
    """
    is_page = format == WEB
    format, features = ("tflite", True) if is_page else (format, features)
    choice = _Choice(format, quantize, input_type, logits, features, split, author, license, threads)
    if images < 1:
        raise UserError(f"images must be at least 1, got {images}")
    out = files.expanded(out)
    bundle = bundles.load(model, classes)
    if is_page:
        written.check_place(out)
    loaded.check_beside(out / choice.file_name, bundle)
    held_out = training = None
    if compare or quantize == "int8":
        held_out, training = _images(bundle, data, images, allow_corrupt)
    report = _export(bundle, out, choice, held_out if compare else None, training, tolerance)
    if is_page:
        site.write(out, bundle, _name(bundle))
    return report


def _name(bundle):
    return bundle.path.resolve().name if bundle.path else bundle.model.name


def _images(bundle, data, count, allow_corrupt):
    """Images to compare on, at most `count`, and others to set int8's ranges by."""
    photographs = None if data is None else datasets.open_photographs(data, allow_corrupt=allow_corrupt)
    dataset = photographs or open_data(bundle, data, allow_corrupt=allow_corrupt)
    # "all" is there where one split was made into two: with too few images for that, none are held out.
    nothing_held_out = "all" in dataset.splits and "validation" not in dataset.splits
    held_out = (dataset.split("all") if nothing_held_out else dataset.held_out()).spread(count)
    return held_out, dataset.training() if "train" in dataset.splits else held_out


def _export(bundle, out, choice, held_out, training, tolerance):
    tolerance = tolerance or TOLERANCES[choice.quantize]
    threads = None if choice.format == "saved_model" else choice.threads or usable_cores()
    path, reference = out / choice.file_name, in_float32(bundle.model)
    report = Exported(path, choice.format, choice.quantize, 0, threads, None, tolerance)
    beside = companions.texts(bundle)
    with files.replacing(path) as temporary:
        _write(reference, bundle.preprocessing, choice, training, temporary)
        if held_out is not None:
            found = _compared(reference, bundle.preprocessing, choice.format, threads, held_out, temporary)
            for name, one in found.items():
                one.check(tolerance, f"{path.name}{name}")
            report = dataclasses.replace(report, comparison=found[""])
        if choice.format == "tflite":
            card = lite_metadata.Card(_name(bundle), report.description(bundle), choice.author, choice.license)
            temporary.write_bytes(lite_metadata.described(temporary.read_bytes(), card, beside))
        size = sum(file.stat().st_size for file in [temporary, *temporary.rglob("*")] if file.is_file())
    report = dataclasses.replace(report, size=size)
    if held_out is not None and len(held_out) < FEW_IMAGES:
        warnings.warn(f"{path.name} was compared on {len(held_out)} images alone: too few to tell", stacklevel=3)
    for name, text in beside.items():
        files.write_text(out / name, text)
    report.save(out)
    return report


def _write(model, preprocessing, choice, training, path):
    """Writes a float32 model in the form that was chosen. Images of `training` set int8's ranges."""
    representative = []
    if choice.quantize == "int8":
        representative = _one_by_one(training.spread(REPRESENTATIVE_IMAGES), preprocessing)
    if choice.format == "tflite":
        options = {name: getattr(choice, name) for name in ("split", "logits", "features")}
        options["input_type"] = choice.input_type or "uint8"
        path.write_bytes(
            tflite.convert(model, preprocessing.input_size, choice.quantize, representative, **options)
        )
    elif choice.format == "saved_model":
        saved_model.save(prepared(model, features=choice.features), preprocessing, path)
    else:
        size, features = preprocessing.input_size, choice.features
        onnx_file.save(model, size, path, choice.format, choice.quantize, representative, features=features)


def _compared(model, preprocessing, format, threads, images, path):
    """The `Comparison` of what was written with the model, under ""; for a SavedModel that of image files too."""
    pairs = ((image, image) for image in _one_by_one(images, preprocessing))
    found = {"": comparison.compare(model, runtimes.OPENERS[format](path, threads), pairs, len(images))}
    pairs = _files(images.spread(FILE_IMAGES), preprocessing) if format == "saved_model" else []
    if pairs:
        of_files = runtimes.open_saved_model(path, signature="serve_bytes")
        found[" (serve_bytes)"] = comparison.compare(model, of_files, pairs, len(pairs))
    return found


def _one_by_one(images, preprocessing):
    return (image for image, _ in evaluation_batches(images, preprocessing, 1).as_numpy_iterator())


def _files(images, preprocessing):
    """Pairs of a preprocessed image and its file's content, for those that a SavedModel can decode."""
    contents = [images.encoded(tf.constant(i, tf.int64)).numpy() for i in range(len(images))]
    return [
        (image, [content])
        for image, content in zip(_one_by_one(images, preprocessing), contents)
        if content.startswith((decode.JPEG, decode.PNG))
    ]
