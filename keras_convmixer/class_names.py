"""Class names: their file, ImageNet's thousand, and how a folder's classes are matched to a head's."""

import collections
import functools
from importlib import resources
from os import PathLike
from pathlib import Path

from keras_convmixer.errors import UserError, did_you_mean, visible


@functools.cache
def imagenet():
    """WordNet id → names, in the order of the published 1,000-class heads.

    They are WordNet's words, with one more for each of the two cranes, which are the same there.
    """
    text = resources.files("keras_convmixer").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return {wnid: name for _, wnid, name in rows}


def display_name(name):
    """What to show for a class: ImageNet's words for a WordNet id, any other name as it is."""
    return imagenet().get(name, name)


def index_of(wanted, head):
    """The position in `head` of a class, given by its name or else by its position.

    Args:
        wanted: a name as it stands in `head`; of ImageNet's classes also one of the words for it, as "goldfish"; or
            a position, a number or its digits.
        head: class names of a model, in the order of its outputs.

    Raises:
        ValueError: there is no such class, or more than one of that name.
    """
    if wanted in head:
        return head.index(wanted)
    if str(wanted).isdecimal() and int(wanted) < len(head):
        return int(wanted)
    words = [
        {display_name(name), *display_name(name).split(", ")} if name in imagenet() else {name} for name in head
    ]
    found = [i for i, own in enumerate(words) if wanted in own]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{wanted!r} names the classes {', '.join(map(str, found))}: give one of these numbers")
    known = sorted(set().union(*words))
    raise UserError(f"no class {wanted!r}: {did_you_mean(wanted, known, f'give a name or 0 to {len(head) - 1}')}")


def match(found, head):
    """Positions in `head` of the classes `found` in a data set, by name.

    ImageNet's classes are matched by WordNet id: a folder called `n02510455` or `n02510455_giant_panda` is class
    `n02510455`. An exported file has its words instead, in which two classes of others' files may be the same
    "crane".

    Args:
        found: class names of the data set. head: class names of the model, in the order of its outputs.

    Returns:
        A list as long as `found`.

    Raises:
        ValueError: a class is not among the head's, or more than once.
    """
    times = collections.Counter(head)
    position = {name: i for i, name in enumerate(head) if times[name] == 1}
    keys = [_key(name, position) for name in found]
    missing = [name for name, key in zip(found, keys) if key is None]
    if missing:
        raise UserError(
            f"{len(missing)} of the data's {len(found)} classes are not among the model's {len(head)}: "
            f"{_shortened(missing)} (the model has {_shortened(head)})"
        )
    return [position[key] for key in keys]


def read(path):
    """The names in a classes.txt: one a line, in the order of the model's outputs."""
    try:
        names = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} must name one class a line, as text in UTF-8") from None
    if not names or len(set(names)) != len(names):
        raise UserError(f"{path} must name one class a line, each once")
    return check(names, path)


def check(names, source):
    """The names as a tuple. Raises UserError, quoting the first that a line of text or a terminal cannot hold.

    A line break would make two names of one in classes.txt, and an escape sequence steers the terminal that shows
    it.
    """
    for name in names:
        if not name.strip() or visible(name) != name:
            raise UserError(f"{source}: {name!r} cannot name a class: expected one line of visible characters")
    return tuple(names)


def listed(classes):
    """Class names given as a list, or as the path of a file that `read` takes."""
    if isinstance(classes, (str, PathLike)):
        return read(classes)
    names = tuple(map(str, classes))
    if not names or len(set(names)) != len(names):
        raise UserError(f"classes must name each class once, got {_shortened(names) or 'none'}")
    return names


def _key(name, head):
    """What a data set's class is called in a head; None where it is not in it."""
    first, _, _ = name.partition("_")
    keys = (name, first, display_name(first)) if first in imagenet() else (name,)
    return next((key for key in keys if key in head), None)


def _shortened(names, most=5):
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
