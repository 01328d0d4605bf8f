"""The trained models that come with the package: the folders of `saved_models/`.

In a checkout they lie beside the package, in an installed wheel within it, there without their exported files.
"""

import contextlib
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.errors import UserError

SUMS = "SHA256SUMS"


def place():
    """The folder `saved_models`. Raises FileNotFoundError where an installation is without it."""
    package = Path(__file__).parent
    for folder in (package / "saved_models", package.parent / "saved_models"):
        if (folder / SUMS).is_file():
            return folder
    raise FileNotFoundError(
        "this installation of keras_convmixer has no trained models with it: install it again, from its wheel, "
        "or with pip install -e from a whole checkout"
    )


def names():
    """The names of the trained models that there are."""
    try:
        return sorted({name.partition("/")[0] for name in _sums(place())})
    except FileNotFoundError:
        return []


def folder(name):
    """The model folder of one of `names()`, each file of it that is there compared with its recorded sum.

    Raises:
        ValueError: a file is not what was shipped. FileNotFoundError: the model itself is not there.
    """
    here = place()
    for path, expected in _sums(here).items():
        if not path.startswith(f"{name}/"):
            continue
        try:
            found = files.sha256(here / path)
        except FileNotFoundError:
            continue  # `bundles` names what it misses
        if found != expected:
            raise UserError(
                f"{here / path} is not the file that was shipped: its SHA-256 is {found}, not {expected}; "
                "install keras_convmixer again"
            )
    return here / name


def located(model):
    """The folder of a model: a path as it is, or what a trained model's name stands for. None if it is neither.

    A folder that is called like a trained model goes before it, if it is a model's or a run's.
    """
    path = files.expanded(model)
    if str(model) in names() and not is_taken(path) and not path.is_file():
        return folder(model)
    return path if path.is_dir() else None


def is_taken(path):
    """Whether a model or a run lies in a folder."""
    return any((files.expanded(path) / name).exists() for name in ("model.keras", "recipe.yaml"))


def is_within(path):
    """Whether a folder is one of these models', whose files are as they were shipped."""
    with contextlib.suppress(FileNotFoundError):
        return Path(path).resolve().parent == place().resolve()
    return False


def _sums(here):
    """What `sha256sum --check` reads: paths and their sums."""
    lines = (here / SUMS).read_text(encoding="utf-8").splitlines()
    return {path: found for found, path in (line.split("  ", 1) for line in lines)}
