"""The page that classifies pictures in a browser, written around the TFLite files that an export left in a folder.

index.html, page.js, page.css, worker.js, icon.svg   the page, made of the folder web/ of the repository
wasm/                LiteRT.js, which runs the model: a visit downloads one of its two builds
page.json            the model's name, its files, and what the page says of it
class_weights.bin    what the head weighs the last block's map by, for class activation maps: `(classes, channels)`
                     in little-endian float32. Absent where no Keras model was at hand
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_convmixer import files
from keras_convmixer.bundles import Bundle
from keras_convmixer.errors import UserError
from keras_convmixer.exported import companions
from keras_convmixer.parts import architecture, parts
from keras_convmixer.web.written import ABOUT, page_files, read_json

CLASS_WEIGHTS = "class_weights.bin"
# what TFLite's numbers are called, the most exact first
NUMBERS = {"none": "float32", "float16": "float16", "dynamic": "dynamic", "int8": "int8"}


class Form(NamedTuple):
    """A TFLite file. numbers: what it computes in. said: how it compares with the Keras model, or ""."""

    file: str
    bytes: int
    numbers: str
    said: str


def write(folder: str | os.PathLike, bundle, name: str) -> None:
    """Writes the page into a folder with the `.tflite` files of a model, each as `export` wrote it.

    Args:
        folder: where it is written. What else lies there stays, see `written.check_place`.
        bundle: the `Bundle` that was exported, whose figures and class weights then go with it, or an
            `ExportedBundle`. name: of the model, for the page's heading.

    Raises:
        ValueError: there is no `.tflite` file in the folder.
    """
    folder = Path(folder)
    forms = _forms(folder)
    if not forms:
        raise UserError(f"{folder} has no .tflite file: convmixer export MODEL --format web --out DIR writes one")
    whole = isinstance(bundle, Bundle)
    for path, file in page_files():
        _write_bytes(folder / path, file.read_bytes())
    for path, text in companions.texts(bundle).items():
        files.write_text(folder / path, text)
    if whole:
        kernel = np.asarray(parts(bundle.model).head.get_weights()[0])
        _write_bytes(folder / CLASS_WEIGHTS, np.ascontiguousarray(kernel.T, "<f4").tobytes())
    about = {
        "name": name,
        "forms": [{"file": form.file, "numbers": form.numbers, "bytes": form.bytes} for form in forms],
        "class_weights": CLASS_WEIGHTS if whole else None,
        "card": _card(bundle, forms),
    }
    files.write_text(folder / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _forms(folder):
    """The TFLite files of a folder, the most exact first."""
    forms = []
    for path in folder.glob("*.tflite"):
        quantize, said = _reported(path.with_name(f"{path.name}.json"))
        forms.append(Form(path.name, path.stat().st_size, NUMBERS.get(quantize, path.stem), said))
    order = list(NUMBERS.values())
    return sorted(forms, key=lambda form: (order.index(form.numbers) if form.numbers in order else -1, form.file))


def _reported(path):
    """What the report beside a TFLite file says of its numbers and of its agreement with the Keras model."""
    report = read_json(path)
    got = report.get("comparison") or {}
    if not {"agreement", "images"} <= got.keys():
        return report.get("quantize"), ""
    return report.get(
        "quantize"
    ), f"names the Keras model's class on {got['agreement']:.2%} of {got['images']} images"


def _card(bundle, forms: Sequence[Form]):
    """What is said of the model, as pairs of a term and a text."""
    size = bundle.preprocessing
    height, width = size.input_size
    rows = [("Classes", f"{len(bundle.classes):,}")]
    part = "" if size.crop == 1 else f" {size.crop:.0%}"
    rows += [("Input", f"{width}×{height} pixels, the middle{part} of the picture")]
    if isinstance(bundle, Bundle):
        sizes = architecture(bundle.model)
        rows[:0] = [
            (
                "Architecture",
                f"ConvMixer-{sizes['dim']}/{sizes['depth']}, kernels of {sizes['kernel_size']}, patches of "
                f"{sizes['patch_size']}",
            )
        ]
        metrics = read_json(bundle.path / "metrics.json") if bundle.path else {}
        if {"top1", "images", "split"} <= metrics.keys():
            rows.append(("Accuracy", f"{metrics['top1']:.2%} of {metrics['images']:,} images ({metrics['split']})"))
    for form in forms:
        rows.append((form.numbers, ", ".join(filter(None, (f"{form.bytes / 1e6:.2f} MB", form.said)))))
    return rows


def _write_bytes(path, content):
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)
