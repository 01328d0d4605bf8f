"""What Python reads again of the page's folder. No Keras is needed for it, so that serving begins at once."""

import json
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from keras_convmixer.errors import UserError

INDEX, ABOUT = "index.html", "page.json"


def is_page(folder: Path) -> bool:
    """Whether a folder is one that `site.write` filled."""
    return (folder / INDEX).is_file() and (folder / ABOUT).is_file()


def check_place(folder: Path) -> None:
    """Raises ValueError where a page of another kind lies in a folder, whose files would be lost."""
    own = [name for name, _ in page_files() if (folder / name).exists()]
    if own and not is_page(folder):
        raise UserError(f"{folder} has {own[0]} of another page: give a folder of its own to write this one into")


def page_files() -> Iterator[tuple[str, Traversable]]:
    """What every page is made of: the paths in its folder, each with the file of this package."""
    return _below(resources.files("keras_convmixer.web") / "page", "")


def _below(folder, path):
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry


def names(folder: Path) -> set[str]:
    """The paths of the files that a page asks for, in its folder, and of nothing else that lies there.

    Raises:
        ValueError: a file of the model is gone that the page names, or page.json is not what `site.write` wrote.
    """
    about = read_json(folder / ABOUT)
    try:
        own = {form["file"] for form in about["forms"]} | {about.get("class_weights")} - {None}
        for name in own:
            if Path(name).name != name:
                raise TypeError(name)
    except (KeyError, TypeError):
        raise UserError(f"{folder / ABOUT} is not what export writes: export it again") from None
    for name in sorted(own):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}, which its page names: export it again")
    return own | {name for name, _ in page_files()} | {ABOUT, "labels.txt", "input.json"}


def read_json(path: Path) -> dict:
    """The JSON object in a file; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
