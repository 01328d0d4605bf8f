"""What `benchmark` measured, as a table, CSV, JSON and a chart."""

import dataclasses
import os
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.benchmark import forms
from keras_convmixer.reports import Tabular

BATCHES = (1, 8)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one form of one model.

    Attributes:
        model, form: their names.
        images_per_second: batch size → median of the rounds. spread: batch size → distance of the quartiles from
            each other, as a fraction of the median.
        size: of its files, in bytes; None where it has none of its own.
        peak_memory: of its process, the runtime included, in bytes; None where the system does not tell.
        agreement: fraction of the images with the Keras model's class on top.
        max_difference: largest difference of a logit, as a fraction of the Keras logits' range.
        error: why it could not be measured, else None.
        cut_short: how many of the rounds and images that were asked for it was given, where it is too slow for all.
    """

    model: str
    form: str
    images_per_second: dict[int, float]
    spread: dict[int, float]
    size: int | None = None
    peak_memory: int | None = None
    agreement: float | None = None
    max_difference: float | None = None
    error: str | None = None
    cut_short: str | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark(Tabular):
    """All rows, and what they were measured on."""

    rows: tuple[Row, ...]
    machine: dict

    def fastest(self, model: str, batch: int = 1) -> Row | None:
        """The `Row` of a model with the most images/s, or None."""
        rows = [row for row in self.rows if row.model == model and not row.error]
        return max(rows, key=lambda row: row.images_per_second[batch], default=None)

    def summary(self) -> dict:
        return dataclasses.asdict(self)

    def records(self) -> list[list]:
        speeds = [f"images_per_second_batch_{batch}" for batch in BATCHES]
        spreads = [f"spread_batch_{batch}" for batch in BATCHES]
        rest = ("size", "peak_memory", "agreement", "max_difference", "error", "cut_short")
        records: list[list] = [["model", "form", *speeds, *spreads, *rest]]
        for row in self.rows:
            measured = [d.get(batch) for d in (row.images_per_second, row.spread) for batch in BATCHES]
            records.append([row.model, row.form, *measured, *(getattr(row, name) for name in rest)])
        return records

    def lines(self) -> list[str]:
        lines = [", ".join(f"{name} {value}" for name, value in self.machine.items())]
        for model in dict.fromkeys(row.model for row in self.rows):
            lines += ["", model, HEADER]
            for row in (row for row in self.rows if row.model == model):
                lines.append(f"{row.form.ljust(20)}  {row.error}" if row.error else _line(row))
            best = self.fastest(model)
            if best:
                speed = f"{best.images_per_second[1]:.1f} images/s, agreement {best.agreement:.1%}"
                lines += ["", f"fastest here, one image at a time: {best.form}, {speed}"]
        return lines

    def draw(self, path: str | os.PathLike) -> None:
        """Writes a bar chart as PNG."""
        from matplotlib.figure import Figure

        models = list(dict.fromkeys(row.model for row in self.rows))
        figure = Figure(figsize=(9, 0.9 + 0.34 * len(self.rows) + 0.6 * len(models)), layout="constrained")
        heights = [max(1, sum(row.model == model for row in self.rows)) for model in models]
        axes = figure.subplots(len(models), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, model in zip(axes, models):
            rows = [row for row in self.rows if row.model == model and not row.error][::-1]
            names = [row.form for row in rows]
            speeds = [row.images_per_second[1] for row in rows]
            colours = ["#2a6f97" if row.form in forms.OURS else "#b8b8b8" for row in rows]
            bars = axis.barh(names, speeds, color=colours)
            agreements = [f"{row.images_per_second[1]:.1f}   agreement {row.agreement:.1%}" for row in rows]
            axis.bar_label(bars, agreements, padding=4, fontsize=8)
            axis.set_xlim(0, 1.35 * max(speeds, default=1))
            axis.set_title(model, loc="left", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel(f"images/s, one image at a time, {self.machine['threads']} threads")
        figure.savefig(path, dpi=130)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes benchmark.csv, benchmark.json and benchmark.png into a folder."""
        folder = Path(folder)
        files.write_text(folder / "benchmark.csv", self.as_csv())
        files.write_text(folder / "benchmark.json", self.as_json() + "\n")
        with files.replacing(folder / "benchmark.png") as temporary:
            self.draw(temporary)


def _line(row):
    cells = [f"{row.images_per_second[batch]:.1f} ±{row.spread[batch] / 2:.0%}" for batch in BATCHES]
    cells += [f"{size / 1e6:.2f} MB" if size else "" for size in (row.size, row.peak_memory)]
    cells += [f"{row.agreement:.1%}", f"{row.max_difference:.1e}"]
    return _columns(row.form, *cells) + (f"  (slow: {row.cut_short})" if row.cut_short else "")


def _columns(form, *cells):
    return form.ljust(20) + "".join(cell.rjust(14) for cell in cells)


HEADER = _columns("form", "1: images/s", "8: images/s", "size", "peak memory", "agreement", "difference")
