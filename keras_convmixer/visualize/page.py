"""The page of every figure: a title, a few words, panels with their labels."""

from PIL import ImageFont

from keras_convmixer.errors import visible
from keras_convmixer.fonts import font_for

DPI = 130
INK, GREY = "#1f2328", "#656d76"
# inches
_MARGIN, _GAP, _LABEL, _LINE = 0.28, 0.16, 0.26, 0.21


def page(title, words, labels, side=2.3, aspect=1.0, foot=0):
    """A figure with a title, a few words below it, and a panel for each label, four or five a row.

    Args:
        side: width of a panel in inches. aspect: its height by its width. foot: lines of room below it.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    columns = len(labels) if len(labels) <= 5 else 4
    rows, foot = -(-len(labels) // columns), foot * 0.17
    width = max(2 * _MARGIN + columns * (side + _GAP) - _GAP, 5.2)
    lines = _wrapped(words, (width - 2 * _MARGIN) * 72 / 9)
    head = _MARGIN + 0.32 + len(lines) * _LINE + 0.14
    label_height = _LABEL if any(labels) else 0
    step = label_height + side * aspect + foot + _GAP
    height = head + rows * step - _GAP + _MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def write(x, y, text, size, color=INK, room=width - 2 * _MARGIN):
        path = font_for(text := visible(text))
        text = text if path else text.encode("ascii", "replace").decode()
        path = path or font_for(text)
        style = {"fontproperties": FontProperties(fname=path, size=size), "color": color, "parse_math": False}
        figure.text(x / width, 1 - y / height, _shortened(text, path, room * 72 / size), **style)

    write(_MARGIN, _MARGIN + 0.18, title, size=14)
    for i, line in enumerate(lines):
        write(_MARGIN, _MARGIN + 0.46 + i * _LINE, line, size=9, color=GREY)
    panels = []
    for i, label in enumerate(labels):
        left, top = _MARGIN + i % columns * (side + _GAP), head + i // columns * step
        write(left, top + label_height - 0.08, label, size=9.5, room=side)
        bottom = top + label_height + side * aspect
        place = (left / width, 1 - bottom / height, side / width, side * aspect / height)
        panel = figure.add_axes(place)
        panel.set_axis_off()
        panel.set_anchor("NW")
        panels.append(panel)
    return figure, panels


def _shortened(text, path, room):
    """As much of a text as fits, in a font's file, into a width that is counted in the font's sizes."""
    font, kept = ImageFont.truetype(path, 100), text
    while font.getlength(kept) > 100 * room:
        kept = kept.removesuffix("...")[:-1] + "..."
    return kept


def _wrapped(text, room):
    """A text in lines of such a width, in the font's sizes."""
    font, lines = ImageFont.truetype(font_for(text) or font_for(""), 100), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= 100 * room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]
