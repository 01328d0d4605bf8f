"""What Python reads again of the page's folder. No Keras is needed for it, so that serving begins at once."""

import json
from pathlib import Path

from keras_convmixer.errors import UserError

INDEX, ABOUT = "index.html", "page.json"


def is_page(folder: Path) -> bool:
    """Whether a folder is one that `site.write` filled."""
    return (folder / INDEX).is_file() and (folder / ABOUT).is_file()


def check(folder: Path) -> None:
    """Raises ValueError where a file of the model is gone that the page names."""
    try:
        names = [form["file"] for form in read_json(folder / ABOUT)["forms"]]
    except (KeyError, TypeError):
        raise UserError(f"{folder / ABOUT} is not what export writes: export it again") from None
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}, which its page names: export it again")


def read_json(path: Path) -> dict:
    """The JSON object in a file; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
