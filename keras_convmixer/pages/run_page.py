"""The page of one run: what was trained on what, how it went, what the model gets right and wrong."""

import json

from keras_convmixer.class_names import display_name
from keras_convmixer.pages import charts
from keras_convmixer.pages.confusion import MOST_IN_A_TABLE, confusion
from keras_convmixer.pages.html import facts, page, section, table, tag
from keras_convmixer.pages.kernels import kernels
from keras_convmixer.pages.mistakes import mistakes
from keras_convmixer.parts import architecture
from keras_convmixer.recipes import Recipe, list_recipes

NAME = "report.html"
# Of more classes the table has so many, the weakest.
MOST_CLASSES = 1000


def run_page(record, bundle=None, evaluation=None, notes=()):
    """The text of a run's page.

    Args:
        record: a `Record` of one epoch or more. bundle: the run's `Bundle`, or None where its model is not at hand.
        evaluation: an `Evaluation` of it, or None: then there is what metrics.json holds, and no confusion matrix,
            calibration or mistakes.
        notes: sentences that a reader should know before the rest.

    Raises:
        ImportError: matplotlib is not installed.
    """
    content = [_head(record, bundle), *(tag("p", note, class_="note") for note in notes), _figures(record)]
    content += [_training(record), _recipe(record), _curves(record.history)]
    scores = evaluation.scores() if evaluation else record.metrics and record.metrics.by_class
    by_class = [_classes(scores)] if scores else []
    if evaluation:
        by_class.append(confusion(evaluation.confusion, evaluation.classes))
    few = len(scores or ()) <= MOST_IN_A_TABLE
    content.append(tag("div", by_class, class_="flow" if few else None))
    if evaluation:
        content += [_calibration(evaluation), mistakes(evaluation, bundle.preprocessing)]
    if bundle:
        content.append(kernels(bundle.model))
    return page(f"{_name(record)}: training report", *content)


def _name(record):
    return record.path.resolve().name


def _head(record, bundle):
    lead = f"{len(record.history):,} of {record.recipe.training.epochs:,} epochs on {source(record)}"
    if bundle:
        sizes, (height, width) = architecture(bundle.model), bundle.preprocessing.input_size
        lead = (
            f"ConvMixer of dim {sizes['dim']}, depth {sizes['depth']}, kernel {sizes['kernel_size']}, patch "
            f"{sizes['patch_size']}, for images of {height}×{width}: {lead}"
        )
    return tag("header", tag("h1", _name(record)), tag("p", lead, class_="lead"))


def source(record):
    """What a run's data is called."""
    return record.recipe.data.source or "batches of the user's own"


def _figures(record):
    """The few numbers that most readers come for: name, value, and what it is."""
    found = _measured(record.metrics) if record.metrics else _so_far(record.history[-1])
    if record.seconds is not None:
        found.append(("time", duration(record.seconds), "of training, without measuring"))
    if record.images_per_second is not None:
        found.append(("images/s", f"{record.images_per_second:,.0f}", "median of the epochs"))
    tiles = [tag("div", tag("dt", name), tag("dd", value, tag("small", words))) for name, value, words in found]
    return tag("dl", tiles, class_="figures")


def _measured(metrics):
    low, high = metrics.top1_interval or (None, None)
    sure = "on held-out images" if low is None else f"95 % interval {low:.2%} to {high:.2%}"
    few = metrics.by_class is not None and len(metrics.by_class) <= 5  # and so all of them are the first five
    tops = {f"top-{k}": getattr(metrics, f"top{k}") for k in range(2, 5 if few else 6)}
    found = [("top-1", f"{metrics.top1:.2%}", sure)]
    found += [(name, f"{share:.2%}", "on held-out images") for name, share in tops.items() if share is not None]
    found += [("loss", f"{metrics.loss:.4f}", "cross-entropy in nats")]
    if metrics.calibration_error is not None:
        found += [("ECE", f"{metrics.calibration_error:.2%}", "expected calibration error")]
    return found


def _so_far(last):
    words, found = "on held-out images, after the last epoch so far", []
    if "val_accuracy" in last:
        found.append(("top-1", f"{last['val_accuracy']:.2%}", words))
    if "val_loss" in last:
        found.append(("loss", f"{last['val_loss']:.4f}", words))
    return found


def _training(record):
    metrics, pairs = record.metrics, [("data", source(record))]
    if metrics and metrics.data and metrics.data.images:
        counts = [f"{count:,} {split}" for split, count in metrics.data.images.items()]
        pairs += [("images", ", ".join(counts))]
    if metrics:
        measured = f"{metrics.images:,} images ({metrics.split})" if metrics.images is not None else None
        measured = f"{measured}, {metrics.skipped:,} could not be read" if metrics.skipped else measured
        pairs += [
            ("measured on", measured),
            ("parameters", f"{metrics.parameters:,}" if metrics.parameters is not None else None),
            ("trained", "the head alone" if metrics.frozen else "all of the model"),
            (
                "early stopping",
                f"the weights are those of epoch {metrics.best_epoch}" if metrics.best_epoch else None,
            ),
            ("precision", metrics.precision),
            ("devices", ", ".join(metrics.devices) if metrics.devices else None),
            ("processor", metrics.processor),
            ("versions", ", ".join(f"{k} {v}" for k, v in metrics.versions.items()) if metrics.versions else None),
        ]
    pairs += [("seed", record.recipe.seed)]
    return section("What was trained", facts(pairs))


def _recipe(record):
    """What the recipe has of its own: its differences from the one of the package that it is nearest to."""
    known = {name: Recipe.load(name) for name in list_recipes()}
    own = {name: record.recipe.changed_from(other) for name, other in known.items()}
    nearest = min(own, key=lambda name: len(own[name]))
    differences = [(key, str(here), str(there)) for key, (there, here) in own[nearest].items()]
    words = f"As the recipe {nearest} of the package" + (", but for:" if differences else ".")
    parts = [tag("p", words)]
    if differences:
        parts.append(table(f"Differences from {nearest}", ("key", "here", nearest), differences))
    if record.changes:
        parts += [
            tag("h3", "Changed on the way"),
            tag("ul", [tag("li", _changed(entry)) for entry in record.changes]),
        ]
    whole = tag("details", tag("summary", "The whole recipe"), tag("pre", record.recipe.to_yaml()))
    return section("Recipe", *parts, whole)


def _changed(entry):
    """An entry of changes.json in words."""
    what = entry.get("message") or json.dumps(entry.get("changes"), ensure_ascii=False)
    return f"after {entry.get('after')}: {entry.get('why')}: {what}"


def _curves(history):
    legend = [
        tag("li", charts.key(look), words) for look, words in enumerate(("training images", "held-out images"))
    ]
    drawn = [
        ("accuracy", [curve(history, "accuracy", 0), curve(history, "val_accuracy", 1)], True),
        ("loss", [curve(history, "loss", 0), curve(history, "val_loss", 1)], False),
        ("learning rate", [curve(history, "learning_rate", 2)], False),
    ]
    words = "Loss and accuracy of the training images are means over the epoch, augmented as the recipe says. "
    words += "The learning rate is that after the epoch's last step."
    return section(
        "Curves",
        tag("ul", legend, class_="legend"),
        tag("div", [chart(title, found, percent) for title, found, percent in drawn], class_="charts"),
        tag("p", words),
    )


def curve(history, name, look):
    """A figure of history.csv as a `charts.Line` of a look."""
    points = [(row["epoch"], row[name]) for row in history if "epoch" in row and name in row]
    return charts.Line([epoch for epoch, _ in points], [value for _, value in points], look)


def chart(title, found, percent):
    """A chart of `charts.Line`s over epochs under its title."""
    return tag("figure", tag("h3", title), charts.lines(title, found, percent=percent))


def _classes(scores):
    ranked = sorted(scores.items(), key=lambda item: item[1].recall)
    rows = [
        (display_name(name), f"{one.precision:.2%}", f"{one.recall:.2%}", f"{one.f1:.2%}", f"{one.images:,}")
        for name, one in ranked
    ]
    head = ("class", "precision", "recall", "F1", "images")
    if len(rows) <= MOST_IN_A_TABLE:
        return section("Classes", table("Scores by class, the weakest first", head, rows, "numbers"))
    shown = table(
        f"The {MOST_IN_A_TABLE} weakest of {len(rows):,} classes", head, rows[:MOST_IN_A_TABLE], "numbers"
    )
    kept = rows[MOST_IN_A_TABLE:MOST_CLASSES]
    rest = table("The others" if len(rows) <= MOST_CLASSES else f"The next {len(kept):,}", head, kept, "numbers")
    return section("Classes", shown, tag("details", tag("summary", "More classes"), rest))


def _calibration(evaluation):
    bins = evaluation.calibration_bins()
    rows = [
        (
            f"{i / len(bins):.0%} to {(i + 1) / len(bins):.0%}",
            f"{one.probability:.1%}",
            f"{one.right:.1%}",
            one.images,
        )
        for i, one in enumerate(bins)
        if one.images
    ]
    words = (
        f"Expected calibration error: {evaluation.calibration_error:.2%}. Bars: of the images of which the model "
    )
    words += "gives its first class a probability in the range, the share that is right; dots are at their mean "
    words += "probability. A model as sure as it should be has its dots on the dashed line."
    head = ("probability", "mean", "right", "images")
    return section(
        "Calibration",
        tag(
            "div",
            tag("figure", charts.reliability(bins), tag("figcaption", words)),
            table("The bins that have images", head, rows, "numbers"),
            class_="beside",
        ),
    )


def duration(seconds):
    """A time in words, such as "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
