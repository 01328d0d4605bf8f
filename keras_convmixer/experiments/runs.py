"""Runs beside each other: what they differ in, how good they are, what they cost."""

import dataclasses
import os
import statistics
from collections.abc import Iterable
from pathlib import Path

from keras_convmixer import class_names, files
from keras_convmixer.pages.record import Record
from keras_convmixer.recipes import Recipe
from keras_convmixer.reports import Tabular

FAILED = "failed.txt"
# Of the images that the smaller of two runs learned from, the other must know so many, or its data is another.
_LEAST_SHARED = 0.05
_FIGURES = ("accuracy", "loss", "epochs", "parameters", "seconds", "images_per_second")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder tells.

    Attributes:
        path: the folder.
        recipe: its `Recipe`.
        epochs: how many it has done.
        accuracy, loss: on the held-out split: at its end, or after its last epoch so far; None before the first.
        finished: whether it came to its end.
        parameters: of the model, where the run noted it.
        seconds: of training, validation left out. images_per_second: median over the epochs. None where the run did
            not note them.
        failed: why it stopped, where a sweep noted that and it has not come to its end since.
        record: the files that all this was read from.
    """

    path: Path
    recipe: Recipe
    epochs: int
    accuracy: float | None
    loss: float | None
    finished: bool
    parameters: int | None
    seconds: float | None
    images_per_second: float | None
    failed: str | None
    record: Record

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Run":
        """Reads a run's folder.

        Raises:
            FileNotFoundError: it is none. ValueError: a file in it is not what it should be.
        """
        record = Record.read(path)
        last, metrics = record.history[-1] if record.history else {}, record.metrics
        failed = record.path / FAILED
        return cls(
            record.path,
            record.recipe,
            len(record.history),
            metrics.top1 if metrics else last.get("val_accuracy"),
            metrics.loss if metrics else last.get("val_loss"),
            metrics is not None,
            metrics.parameters if metrics else None,
            record.seconds,
            record.images_per_second,
            failed.read_text(encoding="utf-8").strip() if failed.is_file() and not metrics else None,
            record,
        )

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes; None where it has not noted them."""
        path = self.path / "classes.txt"
        return class_names.read(path) if path.exists() else None

    @property
    def split(self) -> str | None:
        """The split that it was measured on; None where it has not noted that."""
        return self.record.metrics and self.record.metrics.split

    @property
    def images(self) -> int | None:
        """How many images its data has; None where it has not noted that."""
        recorded = self.record.metrics and self.record.metrics.data
        return sum(recorded.images.values()) if recorded and recorded.images else None


@dataclasses.dataclass(frozen=True)
class Comparison(Tabular):
    """Several runs. Those that differ in nothing but their seed are one line of the table: mean and spread."""

    runs: tuple[Run, ...]

    @property
    def keys(self) -> list[str]:
        """The recipe's keys in which the runs differ. The seed is none, nor where images lie that are the same."""
        flat = [run.recipe.flat() for run in self.runs]
        names = dict.fromkeys(name for values in flat for name in values)
        differ = [name for name in names if len({repr(values.get(name)) for values in flat}) > 1]
        return [
            name
            for name in differ
            if name != "seed" and (name != "data.source" or self._are_of_several_data_sets())
        ]

    def _are_of_several_data_sets(self):
        return any(other_data(self.runs[0], run) for run in self.runs[1:])

    def groups(self) -> dict[tuple, list[Run]]:
        """The runs by their values of `keys`."""
        keys = self.keys
        found: dict[tuple, list[Run]] = {}
        for run in self.runs:
            flat = run.recipe.flat()
            found.setdefault(tuple(str(flat.get(name)) for name in keys), []).append(run)
        return found

    def summary(self) -> list[dict]:
        keys = self.keys
        return [
            {"run": str(run.path), "seed": run.recipe.seed, "finished": run.finished, "failed": run.failed}
            | {name: run.recipe.flat().get(name) for name in keys}
            | {name: getattr(run, name) for name in _FIGURES}
            for run in self.runs
        ]

    def records(self) -> list[list]:
        rows = self.summary()
        return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []

    def lines(self) -> list[str]:
        table = self.table()
        widths = [max(map(len, column)) for column in zip(*table)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]

    def as_markdown(self) -> str:
        """The table in Markdown."""
        head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in self.table())
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes runs.csv, runs.md and runs.png into a folder."""
        folder = files.expanded(folder)
        files.write_text(folder / "runs.csv", self.as_csv())
        files.write_text(folder / "runs.md", self.as_markdown() + "\n")
        with files.replacing(folder / "runs.png") as temporary:
            self.draw(temporary)

    def draw(self, path: str | os.PathLike) -> None:
        """Writes a chart as PNG: each run a dot, each group's mean a line through its dots."""
        from matplotlib.figure import Figure

        groups = {_label(self.keys, values) or runs[0].path.name: runs for values, runs in self.groups().items()}
        figure = Figure(figsize=(8, 1 + 0.4 * len(groups)), layout="constrained")
        axes = figure.add_subplot()
        for place, runs in enumerate(groups.values()):
            found = [100 * run.accuracy for run in _counted(runs) if run.accuracy is not None]
            if found:
                axes.plot(found, [place] * len(found), "o", color="#2a6f97", alpha=0.6)
                axes.plot([statistics.mean(found)], [place], "|", color="black", markersize=14)
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.set_xlabel("accuracy on held-out images, %")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=130)

    def table(self) -> list[list[str]]:
        """The columns' names, then a row of text for each group."""
        head = [*(self.keys or ["run"]), "runs", "accuracy", "loss", "epochs", "parameters", "time", "images/s"]
        return [head, *(self._row(values, runs) for values, runs in self.groups().items())]

    def _row(self, values, runs):
        failed = [run for run in runs if run.failed and not run.finished]
        open_ones = [run for run in runs if not run.finished and not run.failed]
        count = str(len(runs))
        count += f", {len(failed)} failed: {failed[0].failed}" if failed else ""
        count += f", {len(open_ones)} unfinished" if open_ones else ""
        runs = _counted(runs)
        epochs = sorted({run.epochs for run in runs})
        seconds = _mean(run.seconds for run in runs)
        return [
            *(values or [runs[0].path.name]),
            count,
            _with_spread([None if run.accuracy is None else 100 * run.accuracy for run in runs], 2, " %"),
            _with_spread([run.loss for run in runs], 4),
            "–".join(map(str, dict.fromkeys((epochs[0], epochs[-1])))),
            f"{runs[0].parameters:,}" if runs[0].parameters else "",
            "" if seconds is None else f"{seconds / 60:.1f} min",
            _with_spread([run.images_per_second for run in runs], 1),
        ]


def compare(folders: Iterable[str | os.PathLike]) -> Comparison:
    """Puts runs beside each other.

    Args:
        folders: of runs, or of folders that hold runs, at any depth.

    Raises:
        FileNotFoundError: there is no run in one of them.
    """
    found = []
    for folder in map(Path, folders):
        own = {path.parent for path in folder.rglob("recipe.yaml")}
        own = sorted(path for path in own if path.name != "best" or path.parent not in own)  # a run's best epoch
        if not own:
            raise FileNotFoundError(f"{folder}: no run there (a folder with recipe.yaml, as `train` leaves it)")
        found += own
    return Comparison(tuple(map(Run.read, dict.fromkeys(found))))


def other_data(one, other):
    """What tells that two runs are not over the same data, wherever it lies; or None."""
    if None not in (classes := _both(one, other, lambda run: run.classes)) and classes[0] != classes[1]:
        return "their classes are not the same"
    if None not in (splits := _both(one, other, lambda run: run.split)) and splits[0] != splits[1]:
        return f"they were measured on other splits, {splits[0]} and {splits[1]}"
    if None not in (counts := _both(one, other, lambda run: run.images)) and counts[0] != counts[1]:
        return f"their data has {counts[0]:,} and {counts[1]:,} images"
    import numpy as np

    from keras_convmixer.data import fingerprints  # TensorFlow takes longer than a table of runs does

    known = _both(one, other, lambda run: fingerprints.read(run.path))
    if all(part is not None for part in known):
        shared = len(np.intersect1d(*known)) >= _LEAST_SHARED * min(map(len, known))
        return None if shared else "they learned from other images"
    sources = _both(one, other, lambda run: run.recipe.data.source or "batches of the user's own")
    return None if sources[0] == sources[1] else f"their data is {sources[0]} and {sources[1]}"


def _both(one, other, of):
    return of(one), of(other)


def _counted(runs):
    """Those of a group that its figures are of: the finished ones, where there are any."""
    return [run for run in runs if run.finished] or runs


def _label(keys, values):
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in zip(keys, values))


def _mean(values):
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _with_spread(values, digits, unit=""):
    """Mean, and the standard deviation where there is more than one."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{spread}{unit}"
