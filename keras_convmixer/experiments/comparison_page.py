"""A page that sets several runs beside each other: what they differ in, their figures, their curves."""

import os

import numpy as np

from keras_convmixer.data import fingerprints
from keras_convmixer.errors import UserError
from keras_convmixer.experiments.runs import other_data
from keras_convmixer.pages import charts
from keras_convmixer.pages.html import page, section, table, tag
from keras_convmixer.pages.run_page import chart, curve, duration, source

_CURVES = {
    "held-out accuracy": "val_accuracy",
    "held-out loss": "val_loss",
    "training loss": "loss",
    "learning rate": "learning_rate",
}


def comparison_page(found):
    """The text of the page.

    Args:
        found: a `Comparison` of two runs or more.

    Raises:
        UserError: they are not all over the same data. ImportError: matplotlib is not installed.
    """
    first, *others = found.runs
    for run in others:
        other = other_data(first, run)
        if other:
            raise UserError(f"{first.path} and {run.path} cannot be compared: {other}")
    title = f"{len(found.runs)} runs compared"
    content = [tag("h1", title), tag("p", f"All on {source(first.record)}.", class_="lead")]
    if len({run.recipe.seed for run in found.runs}) > 1 and not all(_same_images(first, run) for run in others):
        words = "Another seed holds out other images here: figures of different seeds are of different images."
        content.append(tag("p", words, class_="note"))
    looks = {run.path: look for look, runs in enumerate(found.groups().values()) for run in runs}
    root = os.path.commonpath([run.path.resolve().parent for run in found.runs])

    def named(run):
        """What a run's row or column is headed by: a piece of its line, and its name."""
        return [charts.key(looks[run.path]), os.path.relpath(run.path.resolve(), root)]

    content += [_differences(found, named), _figures(found, named), _curves(found, looks)]
    return page(title, *content)


def _differences(found, named):
    values = [run.recipe.flat() for run in found.runs]
    if not found.keys:
        return section("What differs", tag("p", "Nothing but their seeds."))
    rows = [[named(run), *(str(one.get(key)) for key in found.keys)] for run, one in zip(found.runs, values)]
    head = ["run", *found.keys]
    if len(found.keys) > len(found.runs):  # then the keys are the rows
        head, *rows = map(list, zip(head, *rows))
    return section("What differs", table("The recipes' keys that are not the same in all runs", head, rows))


def _figures(found, named):
    head = ("run", "seed", "top-1", "loss", "epochs", "parameters", "time", "images/s", "")
    rows = [
        (
            named(run),
            run.recipe.seed,
            "" if run.accuracy is None else f"{run.accuracy:.2%}",
            "" if run.loss is None else f"{run.loss:.4f}",
            f"{run.epochs:,} of {run.recipe.training.epochs:,}",
            "" if run.parameters is None else f"{run.parameters:,}",
            "" if run.seconds is None else duration(run.seconds),
            "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
            "" if run.finished else f"failed: {run.failed}" if run.failed else "unfinished",
        )
        for run in found.runs
    ]
    tables = [table("Each run, on held-out images; time without measuring", head, rows, "numbers")]
    if len(found.groups()) < len(found.runs):
        head, *rows = found.table()
        caption = "Runs that differ in their seed alone: mean and standard deviation"
        tables.append(table(caption, head, rows, "numbers"))
    return section("Figures", *tables)


def _curves(found, looks):
    drawn = []
    for title, name in _CURVES.items():
        lines = [curve(run.record.history, name, looks[run.path]) for run in found.runs]
        drawn.append(chart(title, lines, percent="accuracy" in title))
    return section("Curves", tag("div", drawn, class_="charts large"))


def _same_images(one, other):
    """Whether two runs learned from the same images, as far as that is known."""
    known = [fingerprints.read(run.path) for run in (one, other)]
    return any(part is None for part in known) or np.array_equal(*known)
