"""HTML pages that are one file: elements of the standard library's ElementTree, which escapes all text itself."""

import base64
import io
from importlib import resources
from xml.etree import ElementTree

from keras_convmixer import files
from keras_convmixer.errors import UserError, visible
from keras_convmixer.machine import versions

# Nothing is fetched and nothing is run, whatever a name in the page may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MADE_BY = "keras_convmixer report"
_DOCTYPE = "<!doctype html>\n"


def tag(name, /, *children, **attributes):
    """An element, of children that are elements, text, numbers, lists of such, or None for nothing.

    Args:
        attributes: by name, with `_` for `-` and at the end of one that Python has a use for, as `class_`; those
            that are None are left out.
    """
    known = {key.rstrip("_").replace("_", "-"): visible(v) for key, v in attributes.items() if v is not None}
    element = ElementTree.Element(name, known)
    _append(element, children)
    return element


def _append(element, children):
    for child in children:
        if isinstance(child, ElementTree.Element):
            element.append(child)
        elif isinstance(child, (list, tuple)):
            _append(element, child)
        elif child is not None:
            text = "\n".join(map(visible, str(child).split("\n")))
            if len(element):
                element[-1].tail = (element[-1].tail or "") + text
            else:
                element.text = (element.text or "") + text


def section(title, *content):
    """A part of a page under its heading."""
    return tag("section", tag("h2", title), *content)


def table(caption, head, rows, class_=None):
    """A table that scrolls sideways where the screen is narrow.

    Args:
        caption: what it shows. head: the columns' names; rows: what `tag` takes, the first of each names its row.
    """
    columns = tag("tr", [tag("th", name, scope="col") for name in head])
    body = [tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in rest]) for first, *rest in rows]
    return scrolling(caption, tag("thead", columns), tag("tbody", body), class_=class_)


def scrolling(caption, *parts, class_=None):
    """A table of parts of one's own, as `table`. It scrolls by keyboard too."""
    made = tag("table", tag("caption", tag("span", caption)), *parts, class_=class_)
    return tag("div", made, class_="scroll", role="region", aria_label=caption, tabindex="0")


def facts(pairs):
    """Names and values beside each other; pairs of which the value is None are left out."""
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs if v is not None], class_="facts")


def picture(image, alt, **attributes):
    """A Pillow image, held in the page: as JPEG where it is large and has no transparency, else as PNG."""
    file = io.BytesIO()
    kind = "JPEG" if image.mode == "RGB" and min(image.size) > 48 else "PNG"
    image.save(file, kind, quality=80) if kind == "JPEG" else image.save(file, kind, optimize=True)
    data = f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    width, height = image.size
    return tag("img", src=data, alt=alt, width=width, height=height, **attributes)


def page(title, *content):
    """The text of a whole page."""
    css = resources.files("keras_convmixer.pages").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=_MADE_BY),
        tag("meta", **{"http-equiv": "Content-Security-Policy"}, content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", css),
    )
    version = versions("keras-convmixer").get("keras-convmixer", "")
    foot = tag("footer", f"Made by keras_convmixer {version}. One file; nothing in it is fetched or run.")
    html = tag("html", head, tag("body", tag("main", *content), foot), lang="en")
    return _DOCTYPE + ElementTree.tostring(html, encoding="unicode", method="html") + "\n"


def write(path, text):
    """Writes a page, in the place of an earlier one if need be.

    Raises:
        UserError: something else stands there, or there is no folder for it. OSError: it cannot be written.
    """
    check_place(path)
    files.write_text(path, text)


def check_place(path):
    """Raises UserError where `write` would refuse: asked before long work, not after it."""
    files.check_place(path)
    if not path.exists():
        return
    with path.open("rb") as file:
        beginning = file.read(1000)
    if f'content="{_MADE_BY}"'.encode() not in beginning:
        raise UserError(f"{path} is there already, and no report of this program: give another --out, or remove it")
