"""The table that `architectures.py` prints and writes: a line for each architecture."""

import dataclasses
import statistics
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.experiments.runs import Run
from keras_convmixer.inference.scores import accuracy_interval
from keras_convmixer.reports import Tabular

# form → its column; the last is for a ConvMixer alone
FORMS = {
    "keras": "Keras inference, images/s",
    "stock_tflite": "TFLite, stock converter, images/s",
    "tflite": "TFLite, convmixer export, images/s",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """An architecture.

    Attributes:
        name: of it. trained_by: what trained it.
        parameters: how many are trainable.
        runs: its trainings, one a seed, those that have not begun left out.
        rates: form of `FORMS` → images/s, or why there are none.
    """

    name: str
    trained_by: str
    parameters: int
    runs: tuple[Run, ...]
    rates: dict[str, float | str] = dataclasses.field(default_factory=dict)

    @property
    def finished(self):
        return [run for run in self.runs if run.finished]

    @property
    def failed(self):
        """Why the first that failed did, or None."""
        return next((run.failed for run in self.runs if run.failed and not run.finished), None)

    def summary(self):
        """Plain values. Accuracies are in 0–1, `spread` is the standard deviation over seeds, None of one."""
        own = [run.accuracy for run in self.finished]
        mean = statistics.mean(own) if own else None
        images = min((run.record.metrics.images for run in self.finished), default=None)
        interval = list(accuracy_interval(round(mean * images), images)) if own else None
        speeds = [run.images_per_second for run in self.finished if run.images_per_second]
        return {
            "model": self.name,
            "trained_by": self.trained_by,
            "parameters": self.parameters,
            "learning_rate": self.runs[0].recipe.optimizer.learning_rate if self.runs else None,
            "seeds": [run.recipe.seed for run in self.finished],
            "accuracies": own,
            "accuracy": mean,
            "spread": statistics.stdev(own) if len(own) > 1 else None,
            "interval": interval,
            "held_out_images": images,
            "training_images_per_second": statistics.median(speeds) if speeds else None,
            "inference": dict(self.rates),
            "failed": self.failed,
        }


@dataclasses.dataclass(frozen=True)
class Table(Tabular):
    """The rows, and what they were made with: plain values by name."""

    rows: tuple[Row, ...]
    made_with: dict

    def summary(self) -> dict:
        return {"rows": [row.summary() for row in self.rows], "made_with": self.made_with}

    def records(self) -> list[list]:
        found = []
        for row in self.rows:
            values = row.summary()
            low, high = values.pop("interval") or (None, None)
            rates = values.pop("inference")
            values |= {"interval_low": low, "interval_high": high} | {form: rates.get(form) for form in FORMS}
            for name in ("seeds", "accuracies"):
                values[name] = " ".join(map(str, values[name]))
            found.append(values)
        return [list(found[0]), *(list(values.values()) for values in found)] if found else []

    def cells(self) -> list[list[str]]:
        """The columns' names, then a row of text for each architecture."""
        head = ["model", "trained by", "parameters", "learning rate", "seeds", "accuracy, held out"]
        head += ["95 % interval", "training, images/s", *FORMS.values()]
        return [head, *(self._row(row) for row in self.rows)]

    @staticmethod
    def _row(row):
        values = row.summary()
        spread = "" if values["spread"] is None else f" ± {100 * values['spread']:.2f}"
        accuracy = "" if values["accuracy"] is None else f"{100 * values['accuracy']:.2f}{spread} %"
        failed = f"failed: {row.failed}" if row.failed else ""
        return [
            row.name,
            row.trained_by,
            f"{row.parameters:,}",
            "" if values["learning_rate"] is None else f"{values['learning_rate']:g}",
            ", ".join(map(str, values["seeds"])),
            "; ".join(filter(None, (accuracy, failed))) or "not trained yet",
            "–".join(f"{100 * edge:.2f}" for edge in values["interval"] or ()),
            _rate(values["training_images_per_second"]),
            *(_rate(row.rates.get(form)) for form in FORMS),
        ]

    def lines(self) -> list[str]:
        table = self.cells()
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        return [*lines, "", *self._notes()]

    def as_markdown(self) -> str:
        """The table in Markdown, and below it what it was made with."""
        head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in self.cells())
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        return "\n".join([*lines, "", *self._notes()])

    def _notes(self):
        return [
            "accuracy: mean over the seeds ± standard deviation; the interval is that mean's, by images alone",
            "training: the median epoch, the input included; inference: medians of rounds in which all take turns",
            "; ".join(f"{name} {value}" for name, value in self.made_with.items()),
        ]

    def save(self, folder) -> None:
        """Writes architectures.csv, .md and .json into a folder."""
        for suffix, text in (("csv", self.as_csv()), ("md", self.as_markdown()), ("json", self.as_json())):
            files.write_text(Path(folder) / f"architectures.{suffix}", text.rstrip("\n") + "\n")


def _rate(value):
    return value if isinstance(value, str) else "" if value is None else f"{value:,.1f}"
