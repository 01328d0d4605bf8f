"""Whatever stands for a model as a folder with the page that classifies with it in a browser."""

import os
import shutil
from pathlib import Path

from keras_convmixer import bundles, files
from keras_convmixer.deployment.export import export
from keras_convmixer.errors import UserError
from keras_convmixer.exported import loaded
from keras_convmixer.web import site


def make_site(
    model: str | os.PathLike,
    room: Path,
    *,
    classes: str | os.PathLike | None = None,
    int8: bool = False,
    data: str | os.PathLike | None = None,
) -> None:
    """Fills an empty folder with the page, see `web.site`.

    Args:
        model: a `.tflite` file that `export` wrote, or a folder of them; or what `bundles.load` takes, which is
            exported here, without a comparison.
        room: the empty folder.
        classes: as `bundles.load` takes them. int8: whether to export that form beside float32.
        data: where int8's ranges come from, as `export` takes it. Default: the data the model was trained on.

    Raises:
        ValueError, FileNotFoundError: there is no such model, or it cannot be used.
    """
    path = files.expanded(model)
    is_exported = path.is_dir() and not (path / "model.keras").exists()
    if is_exported or (path.is_file() and path.suffix == ".tflite"):
        if int8 or data:
            raise UserError(f"{path} is exported already: --int8 and --data are for a model that is not")
        found = sorted(path.glob("*.tflite")) if is_exported else [path]
        if not found:
            raise UserError(
                f"{path} has neither model.keras nor a .tflite file, which is what a browser runs: "
                "convmixer export MODEL --format web --out DIR writes one"
            )
        _around(found, room, path.resolve().name if is_exported else path.stem, classes)
    else:
        bundle = bundles.load(model, classes)
        for quantize in ("none", "int8") if int8 else ("none",):
            export(bundle, room, format="web", quantize=quantize, data=data, compare=False)


def _around(exported, room, name, classes):
    """The page around copies of TFLite files, each run once. It has one list of classes."""
    told = set()
    for path in exported:
        bundle = loaded.load(path, classes)
        told.add((bundle.classes, bundle.preprocessing))
        if len(told) > 1:
            raise UserError(f"{path.parent} holds the exports of several models: give one .tflite file of them")
        shutil.copy(path, room)
        report = path.with_name(f"{path.name}.json")
        if report.is_file():
            shutil.copy(report, room)
    site.write(room, bundle, name)
