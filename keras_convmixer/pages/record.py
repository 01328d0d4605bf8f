"""What the folder of a run tells of its training: the recipe, a row of figures for each epoch, those of its end."""

import csv
import dataclasses
import json
import os
import statistics
from pathlib import Path

import pydantic

from keras_convmixer import files
from keras_convmixer.errors import UserError
from keras_convmixer.inference.scores import ClassScores
from keras_convmixer.recipes import Recipe


@pydantic.dataclasses.dataclass(frozen=True)
class Data:
    """The data of a training.

    Attributes:
        source: what `--data` takes, None for batches of the user's own. images: how many, by split.
    """

    source: str | None
    images: dict[str, int]


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="ignore"))
class Metrics:
    """What metrics.json says of a finished run. None stands for what an earlier version did not write.

    What `train` adds to an evaluation's `summary`, which explains the rest: `data`; `devices`, `processor` and
    `versions`, what it was trained with; `precision`, a dtype policy; `frozen`, whether the head alone was trained;
    `best_epoch`, from 1, with early stopping the one whose weights it kept.
    """

    top1: float
    loss: float
    split: str | None = None
    images: int | None = None
    skipped: int = 0
    top1_interval: tuple[float, float] | None = None
    top2: float | None = None
    top3: float | None = None
    top4: float | None = None
    top5: float | None = None
    calibration_error: float | None = None
    by_class: dict[str, ClassScores] | None = None
    parameters: int | None = None
    precision: str | None = None
    frozen: bool = False
    best_epoch: int | None = None
    data: Data | None = None
    devices: list[str] | None = None
    processor: str | None = None
    versions: dict[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """The files of a run as plain values.

    Attributes:
        path: the folder.
        recipe: its `Recipe`.
        history: of each epoch done, the figures that history.csv has for it.
        metrics: what metrics.json has, None before the end of the training.
        changes: what changes.json has: what was changed on the way.
    """

    path: Path
    recipe: Recipe
    history: list[dict[str, float]]
    metrics: Metrics | None
    changes: list[dict]

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Record":
        """Reads a run's folder.

        Raises:
            FileNotFoundError: it is none. ValueError: a file in it is not what it should be.
        """
        path = files.expanded(path)
        if not (path / "recipe.yaml").is_file():
            raise FileNotFoundError(f"{path} is not the folder of a run: it has no recipe.yaml")
        return cls(
            path,
            Recipe.load(path / "recipe.yaml"),
            _history(path / "history.csv"),
            _values(path / "metrics.json", Metrics),
            _values(path / "changes.json", list[dict]) or [],
        )

    @property
    def seconds(self) -> float | None:
        """How long it trained, measuring left out; None where the run did not note it."""
        found = [row["seconds"] for row in self.history if "seconds" in row]
        return sum(found) if found and len(found) == len(self.history) else None

    @property
    def images_per_second(self) -> float | None:
        """The median over the epochs; None where the run did not note it."""
        found = [row["images_per_second"] for row in self.history if "images_per_second" in row]
        return statistics.median(found) if found else None


def _history(path):
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is not a run's history: {error}") from None


def _values(path, kind):
    """What a JSON file holds, None where there is none."""
    if not path.is_file():
        return None
    try:
        return pydantic.TypeAdapter(kind).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} does not hold a run's figures: {key}: {first['msg'].lower()}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
