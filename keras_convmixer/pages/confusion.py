"""A confusion matrix that can be read: of few classes as a table, of many as a map and the pairs that matter."""

import numpy as np
from PIL import Image

from keras_convmixer.class_names import display_name
from keras_convmixer.pages.html import picture, scrolling, section, table, tag

# Of so many classes each has a row and a column with its name.
MOST_IN_A_TABLE = 20
PAIRS = 20
# A map has at most so many points a side: what a screen shows as points.
_SIDE = 250
_COLOUR = (43, 123, 186)


def confusion(counts, classes):
    """The part of a page about which classes are taken for which.

    Args:
        counts: `(true class, predicted class)`. classes: the class names.
    """
    names = [display_name(name) for name in classes]
    if len(names) <= MOST_IN_A_TABLE:
        return section("Confusion", _table(counts, names))
    return section("Confusion", tag("div", _map(counts), _pairs(counts, names), class_="beside"))


def _table(counts, names):
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = tag("tr", tag("td"), [tag("th", tag("span", name), scope="col") for name in names])
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [
                tag("td", count, style=f"--share: {share:.3f}") if count else tag("td", 0, class_="none")
                for count, share in zip(row, its_shares)
            ],
        )
        for name, row, its_shares in zip(names, counts.tolist(), shares.tolist())
    ]
    caption = (
        "Images of each class (rows), by the class that they are taken for (columns). Shaded by the row's share."
    )
    upright = "confusion long" if max(map(len, names)) > 6 else "confusion"
    return scrolling(caption, tag("thead", head), tag("tbody", rows), class_=upright)


def _map(counts):
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    block = -(-len(shares) // _SIDE)
    padded = np.pad(shares, (0, -len(shares) % block))
    sides = len(padded) // block
    darkest = padded.reshape(sides, block, sides, block).max(axis=(1, 3))
    alpha = np.sqrt(darkest) * 255
    pixels = np.concatenate([np.broadcast_to(_COLOUR, (*alpha.shape, 3)), alpha[..., None]], axis=2)
    image = Image.fromarray(pixels.round().astype(np.uint8), "RGBA")
    words = (
        "Rows are the true classes, columns the predicted ones, both in the model's order. A point is as strong "
    )
    words += "as the square root of its share of the row, so that rare mistakes show."
    if block > 1:
        words += f" Each point stands for {block}×{block} pairs of classes, the strongest of them."
    drawn = picture(image, f"Confusion matrix of {len(counts):,} classes as a heat map", class_="map")
    return tag("figure", drawn, tag("figcaption", words))


def _pairs(counts, names):
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    flat = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(flat, wrong.shape)) if wrong[i, j]]
    if not pairs:
        return tag("p", "No image was taken for another class.")
    rows = [(names[i], names[j], f"{wrong[i, j]:,}", f"{wrong[i, j] / counts[i].sum():.1%}") for i, j in pairs]
    return table("The most confused pairs", ("class", "taken for", "images", "of the class"), rows)
