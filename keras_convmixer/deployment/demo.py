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
) -> Path:
    """A folder to serve, made in `room` unless the model is one already.

    Args:
        model: a folder that `export` wrote with format "web"; a `.tflite` file that it wrote, or a folder of them;
            or what `bundles.load` takes, which is exported here, without a comparison.
        room: an empty folder.
        classes: as `bundles.load` takes them. int8: whether to export that form beside float32.
        data: where int8's ranges come from, as `export` takes it. Default: the data the model was trained on.

    Raises:
        ValueError, FileNotFoundError: there is no such model, it cannot be used, or a form of it is missing.
    """
    path = files.expanded(model)
    if path.is_dir() and not (path / "model.keras").exists():
        if site.is_site(path):
            _check_forms(path)
        found = sorted(path.glob("*.tflite"))
        if not found:
            raise UserError(
                f"{path} has neither model.keras nor a .tflite file, which is what a browser runs: "
                f"convmixer export MODEL --format web --out DIR writes one"
            )
        exported = path if site.is_site(path) else _around(found, room, path.resolve().name, classes)
    elif path.is_file() and path.suffix == ".tflite":
        exported = _around([path], room, path.stem, classes)
    else:
        bundle = bundles.load(model, classes)
        for quantize in ("none", "int8") if int8 else ("none",):
            export(bundle, room, format="web", quantize=quantize, data=data, compare=False)
        return room
    if int8:
        raise UserError(f"{path} is exported already: --int8 and --data are for a model that is not")
    return exported


def _around(exported, room, name, classes):
    """The page around copies of TFLite files, each run once."""
    for path in exported:
        bundle = loaded.load(path, classes)
        shutil.copy(path, room)
        report = path.with_name(f"{path.name}.json")
        if report.is_file():
            shutil.copy(report, room)
    site.write(room, bundle, name)
    return room


def _check_forms(folder):
    """Raises UserError where the page names a file of the model that is gone."""
    for name in site.form_files(folder):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}, which its page names: export it again")
