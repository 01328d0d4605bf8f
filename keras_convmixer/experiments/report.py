"""The page of a run made again, or one page of several runs."""

import dataclasses
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from keras_convmixer import bundles, files
from keras_convmixer.data.datasets import is_at_hand
from keras_convmixer.errors import UserError, one_line
from keras_convmixer.experiments.comparison_page import comparison_page
from keras_convmixer.experiments.runs import compare
from keras_convmixer.inference.evaluation import evaluate
from keras_convmixer.pages import html
from keras_convmixer.pages.record import Record
from keras_convmixer.pages.run_page import NAME, run_page, source

COMPARISON = "comparison.html"


def report(
    runs: Iterable[str | os.PathLike],
    *,
    data: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
) -> Path:
    """Writes the page of a run, or one that compares several.

    Args:
        runs: folders of runs; several, or a folder that holds several, are compared.
        data: of one run: what `--data` takes, to measure it on. Default: the run's own, where it is still there.
            Where it is not, the page has what metrics.json holds, and says what is left out.
        out: the file. Default: report.html in the run's folder, or comparison.html in the working directory.

    Returns:
        The file's path.

    Raises:
        FileNotFoundError: there is no run. UserError: a run has no epoch yet, runs are not over the same data, data
            is given for several, or something else than a report stands at `out`. ImportError: matplotlib is not
            installed.
    """
    folders = [files.expanded(run) for run in runs]
    found = compare(folders)
    alone = found.runs[0].record if len(found.runs) == 1 else None
    if data is not None and not alone:
        raise UserError(f"--data is for the report of one run, and there are {len(found.runs)} here")
    for run in found.runs:
        if not run.epochs and (alone or not run.failed):
            raise UserError(f"{run.path} has no epoch in its history.csv: there is nothing to report yet")
    out = files.expanded(out) if out else alone.path / NAME if alone else Path(COMPARISON)
    html.check_place(out)
    html.write(out, _made_again(alone, data) if alone else comparison_page(found))
    return out


def _made_again(record: Record, data):
    """The text of a run's page, of which all that can be measured is measured again."""
    bundle = evaluation = None
    try:
        bundle = bundles.load(record.path)
        _check_at_hand(record, data)
        evaluation = evaluate(bundle, data, verbose=0)
    except (OSError, UserError) as error:
        if data is not None:
            raise
        words = "the confusion matrix, the calibration and the mistakes" + ("" if bundle else ", and the kernels")
        return run_page(record, bundle, notes=[f"Left out: {words}. {one_line(error)}"])
    for name, why in evaluation.skipped:
        warnings.warn(f"cannot be read: {name}: {why}", stacklevel=2)
    seen = f"; the model has learned from {evaluation.trained_on:,} of them" if evaluation.trained_on else ""
    note = (
        f"Measured again for this page, on {data or record.recipe.data.source}: top-1 {evaluation.top(1):.2%} of "
        f"{len(evaluation.labels):,} images ({evaluation.split}){seen}."
    )
    if data is not None and record.metrics:
        note += f" At the end of its training its top-1 was {record.metrics.top1:.2%}, on {source(record)}."
    return run_page(_as_measured(record, evaluation), bundle, evaluation, [note])


def _as_measured(record, evaluation):
    """The record of a run, the figures of whose end, if it has come to it, are an evaluation's."""
    if record.metrics is None:
        return record
    names = {field.name for field in dataclasses.fields(record.metrics)} - {"data"}  # what it was trained on stays
    found = {name: value for name, value in evaluation.summary().items() if name in names}
    found["by_class"] = evaluation.scores()
    none = dict.fromkeys(("top2", "top3", "top4", "top5"))
    return dataclasses.replace(record, metrics=dataclasses.replace(record.metrics, **none | found))


def _check_at_hand(record, data):
    source = record.recipe.data.source
    if data is None and source is None:
        raise UserError("It was trained on batches of the user's own: --data names images to measure it on.")
    if data is None and not is_at_hand(source):
        raise UserError(f"Its data, {source}, is not here: --data names images to measure it on.")
