"""The two files that say how to use an exported model. They lie beside it, and in a TFLite file itself."""

import dataclasses
import json
import zipfile
import zlib

from keras_convmixer import class_names, files
from keras_convmixer.errors import UserError, one_line
from keras_convmixer.preprocessing import Preprocessing

LABELS, INPUT = "labels.txt", "input.json"
# bytes: more than any of them has
MOST_BYTES = 2**24


def texts(bundle):
    """File name → text, for a `Bundle`.

    labels.txt  a class a line, in the order of the outputs
    input.json  what to do with an image before the model gets it
    """
    return {LABELS: "".join(f"{label}\n" for label in _shown(bundle.classes)), INPUT: _input(bundle.preprocessing)}


def are_of(path, bundle):
    """Whether an exported file or folder says what `texts` says of a `Bundle`. Raises what `labels` raises."""
    ours = bundle.preprocessing
    theirs = dataclasses.replace(preprocessing(path), mean=ours.mean, std=ours.std)  # they are within the model
    return ours == theirs and _shown(bundle.classes) == _shown(labels(path))


def _shown(classes):
    return [class_names.display_name(name) for name in classes]


def _input(preprocessing):
    height, width = preprocessing.input_size
    values = {
        "how": f"Resize the image ({preprocessing.interpolation}, antialiased) so that a crop of width by height "
        "from its centre covers the fraction crop of its short side. Pass the crop as RGB, 0 to 255. Do not "
        "normalise it: the model does.",
        "width": width,
        "height": height,
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "color_space": "RGB",
        "range": [0, 255],
        "mean": 0,
        "std": 1,
    }
    return json.dumps(values, indent=2) + "\n"


def labels(path):
    """The class names of an exported file or folder: from a TFLite file itself, or from beside it.

    Where they are ImageNet's, all of them, they are its WordNet ids, which unlike its words are each once.

    Raises:
        FileNotFoundError: there are none. ValueError: they are no names.
    """
    text, source = _text(path, LABELS)
    names = tuple(text.splitlines())
    if not names:
        raise UserError(f"{source} must name one class a line")
    wordnet = class_names.imagenet()
    return tuple(wordnet) if names == tuple(wordnet.values()) else class_names.check(names, source)


def preprocessing(path):
    """The `Preprocessing` that an exported file or folder asks of its caller, who does not normalise.

    Raises:
        FileNotFoundError: nothing says it. ValueError: what does is not what `export` writes.
    """
    text, source = _text(path, INPUT)
    try:
        values = json.loads(text)
        return Preprocessing((values["height"], values["width"]), values["crop"], values["interpolation"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise UserError(f"{source} is not what export writes: {one_line(error)}") from None


def _text(path, name):
    """One of the two texts, and where it was found."""
    beside, content, source = path.parent / name, _inside(path, name), f"{name} in {path}"
    if content is None:
        if not beside.exists():
            raise FileNotFoundError(
                f"{path} has no {name}, in it or beside it: keep the files that export wrote together"
            )
        content, source = files.read_regular(beside, MOST_BYTES), beside
    try:
        return content.decode(), source
    except UnicodeDecodeError:
        raise UserError(f"{source} is not text in UTF-8") from None


def _inside(path, name):
    """The content of a file in the ZIP archive at an exported file's end, or None where there is none.

    Raises:
        UserError: it is there and cannot be read: what lies beside the file may belong to another.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                return None
            with archive.open(name) as file:
                return file.read(MOST_BYTES)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
    ) as error:  # the last: encrypted
        raise UserError(f"{path} is damaged: {name} in it cannot be read: {one_line(error)}") from None
