"""Predictions of many images into one file: in a memory that does not grow, going on from where it was stopped.

What is found is first appended, batch by batch, to a file of JSON Lines beside the one that is asked for, which is
made of it at the end. Of a process that is killed the last line may be half a line: it is done again.
"""

import collections
import contextlib
import csv
import itertools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from scipy.special import softmax

from keras_convmixer import bundles, files
from keras_convmixer.errors import UserError
from keras_convmixer.exported.loaded import ExportedBundle, load
from keras_convmixer.inference.image_files import find_images
from keras_convmixer.inference.prediction import Prediction, Predictions, check_counts, predictions_of
from keras_convmixer.progress import Progress

COLUMNS = ("path", "class", "probability", "error")
# Two machines give the same model's probabilities within this.
SAME = 1e-3
ROWS = 2**14  # of a group in a Parquet file


class Written(NamedTuple):
    """How many images a file of predictions has, and how many of them could not be read."""

    images: int
    unreadable: int


def write_predictions(
    out: str | os.PathLike,
    model: "bundles.Bundle | ExportedBundle | keras.Model | str | os.PathLike",
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    top: int = 5,
    batch_size: int = 32,
) -> Written:
    """Classifies image files, as many as there are, into a file.

    A call that was stopped leaves `OUT.part` beside it; the same call goes on from there, with every file once.

    Args:
        out: a `.csv` or `.parquet` file with the columns path, class, probability and error, a row for each of the
            `top` classes of each image, best first; or a `.jsonl` file with a line for each image, as
            `Prediction.summary` has it. It is replaced when all is done.
        model, paths, classes, top, batch_size: as for `predict`.

    Raises:
        ValueError: `out` ends in something else, top or batch_size is below 1, or what was stopped there was
            begun with another model, other paths or another top. FileNotFoundError: as `predict`.
        TimeoutError: another process is writing the same file.
    """
    out = files.expanded(out)
    if out.suffix not in WRITERS:
        raise UserError(f"{out}: expected a name that ends in {', '.join(WRITERS)}")
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file")
    check_counts(top, batch_size)
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    lock = out.with_name(f".{out.name}.lock")
    with contextlib.ExitStack() as stack:
        room = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            stack.enter_context(files.locked(lock, wait=False))
        except TimeoutError:
            raise TimeoutError(f"{out}: another process is writing it") from None
        found = find_images(paths, Path(room))
        bundle = load(model, classes)
        part = out.with_name(f"{out.name}.part")
        head = {"paths": [str(path) for path in paths], "top": top, "classes": bundle.classes}
        done = _begun(part, head | {"probe": _probe(bundle)})
        left = [file for file in found if str(file.name) not in done]
        with open(part, "a", encoding="utf-8") as file, Progress("predicting", len(found)) as progress:
            progress.update(len(done))
            new = predictions_of(bundle, left, top, batch_size)
            while batch := list(itertools.islice(new, batch_size)):
                file.writelines(json.dumps(prediction.summary()) + "\n" for prediction in batch)
                file.flush()
                progress.update(len(batch))
        with files.replacing(out) as temporary:
            counts = collections.Counter()  # whether there is an error → how many
            WRITERS[out.suffix](_predictions(part, counts), temporary)
        part.unlink()
        lock.unlink(missing_ok=True)
    return Written(counts.total(), counts[True])


def _probe(bundle):
    """What tells two models apart: a model's probabilities on an image of noise."""
    image = np.random.default_rng(0).uniform(0, 255, (1, *bundle.preprocessing.input_size, 3)).astype("float32")
    return softmax(np.asarray(bundle.model.predict_on_batch(image)), axis=1)[0].tolist()


def _begun(part, head):
    """The names of the images that `part` has already. Begins the file, or cuts half a line off its end."""
    done, whole = set(), 0
    with open(part, "ab+") as file:
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                said = json.loads(line)
                if whole:
                    done.add(said["path"])
                else:
                    _check(part, said, head)
            except UserError:
                raise
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{part} is damaged: delete it to begin anew") from None
            whole += len(line)
        file.truncate(whole)
        if not whole:
            file.write(json.dumps(head).encode() + b"\n")
    return done


def _check(part, said, head):
    """Raises UserError where `part` was begun otherwise."""
    close = len(said["probe"]) == len(head["probe"]) and np.allclose(
        said["probe"], head["probe"], rtol=0, atol=SAME
    )
    own = {"model": close, "classes": said["classes"] == list(head["classes"])}
    own |= {key: said[key] == head[key] for key in ("paths", "top")}
    if not all(own.values()):
        other = next(key for key, same in own.items() if not same)
        raise UserError(f"{part} was begun with other {other}: delete it to begin anew, or name another file")


def _predictions(part, counts):
    """Gives what a file of JSON Lines has, after its first line, as `Prediction`s, and counts them."""
    with open(part, encoding="utf-8") as file:
        next(file)
        for line in file:
            said = json.loads(line)
            classes = tuple((one["class"], one["probability"]) for one in said.get("classes", ()))
            counts["error" in said] += 1
            yield Prediction(said["path"], classes, said.get("error"))


def _write_lines(predictions, path):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(prediction.summary()) + "\n" for prediction in predictions)


def _write_csv(predictions, path):
    # A name that is no text comes out as the bytes that it has.
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for prediction in predictions:
            writer.writerows(Predictions([prediction]).records()[1:])


def _write_parquet(predictions, path):
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    schema = pyarrow.schema(dict(zip(COLUMNS, (text, text, pyarrow.float32(), text))))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(predictions, ROWS)):
            rows = [(_text(name), *row) for name, *row in Predictions(group).records()[1:]]
            writer.write_table(pyarrow.table(list(map(list, zip(*rows))), schema=schema))


def _text(name):
    """A file's name as the text that Parquet takes: bytes that are none are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_lines}
