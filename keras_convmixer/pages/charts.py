"""Charts that matplotlib draws as SVG, made part of a page: in its font, and in the colours of light and dark."""

import io
import re
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from keras_convmixer.pages.html import tag

# Colours that tell lines apart on white as on black, and strokes that do so without colours.
COLOURS = ("#2b7bba", "#d2691e", "#2e8b57", "#9467bd", "#c8413b", "#17899a", "#8c6d4f", "#c45a9a")
DASHES = ("", "6 2", "2 2", "6 2 2 2")
# What is drawn in these takes the page's own colour of that name.
_INK, _LINE = "#010203", "#c1c2c3"
_OF_PAGE = {_INK: "var(--ink)", _LINE: "var(--line)"}
_LINK = "{http://www.w3.org/1999/xlink}href"


class Line(NamedTuple):
    """A line of a chart: its points, and the number of its look among colours and dashes."""

    x: list[float]
    y: list[float]
    look: int = 0


def look(number):
    """The colour and the dashes of a line's number, which no other of 32 has."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def key(number):
    """A short piece of a line, for beside its name."""
    colour, dashes = look(number)
    line = tag("line", x1=1, y1=5, x2=27, y2=5, stroke=colour, stroke_width=3, stroke_dasharray=dashes or None)
    return tag("svg", line, viewBox="0 0 28 10", class_="key", aria_hidden="true")


def lines(title, found, *, percent=False):
    """A chart of lines over epochs.

    Args:
        title: what is drawn. found: its `Line`s. percent: whether shares are drawn.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure, axes = _axes()
    for line in found:
        colour, dashes = look(line.look)
        pattern = (0, [float(n) for n in dashes.split()]) if dashes else "solid"
        marker = "o" if len(line.x) <= 30 else None
        axes.plot(line.x, line.y, color=colour, linestyle=pattern, marker=marker, markersize=3, linewidth=1.5)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return _of_page(figure, f"{title} over {max((len(line.x) for line in found), default=0)} epochs")


def reliability(bins):
    """How often a model is right against how sure it is.

    Args:
        bins: `CalibrationBin`s; those without images are left blank.
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = _axes()
    edges = np.linspace(0, 1, len(bins) + 1)
    filled = [(edge, one) for edge, one in zip(edges, bins) if one.images]
    axes.bar(
        [e for e, _ in filled],
        [one.right for _, one in filled],
        1 / len(bins),
        align="edge",
        color=COLOURS[0],
        alpha=0.6,
    )
    axes.plot([0, 1], [0, 1], color=_INK, linestyle=(0, (4, 3)), linewidth=1)
    points = [one.probability for _, one in filled], [one.right for _, one in filled]
    axes.plot(*points, "o", color=COLOURS[1], markersize=3.5, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="share that is right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return _of_page(figure, "Reliability diagram; the table of bins has its figures")


def _axes():
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {"font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _LINE}
    settings |= {"xtick.color": _LINE, "ytick.color": _LINE, "xtick.labelcolor": _INK, "ytick.labelcolor": _INK}
    with rc_context(settings):
        figure = Figure(figsize=(4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _of_page(figure, label):
    """A figure as an SVG element without what an SVG file has and a page has not."""
    from matplotlib import rc_context

    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):  # letters as letters; the same ids each time
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn = re.sub("|".join(_OF_PAGE), lambda colour: _OF_PAGE[colour[0]], text.getvalue())
    root = ElementTree.fromstring(re.sub(r"font-family: [^;\"]*; ", "", drawn))
    used = set(re.findall(r"#([\w-]+)", " ".join(value for one in root.iter() for value in one.attrib.values())))
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
        if _LINK in one.attrib:
            one.set("href", one.attrib.pop(_LINK))
        if one.get("id") not in used:
            one.attrib.pop("id", None)
        one.tail, one.text = None, one.text if one.tag == "text" else None  # what else there is are line breaks
    box = root.get("viewBox")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": label, "class": "chart"})
    return root
