"""Figures of a model: opaque, so that they can be read on any ground, each with its title and what it shows.

A figure is a `matplotlib.figure.Figure` that pyplot knows nothing of; `figure.savefig("name.png")` writes it.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from PIL import Image, ImageFont
from scipy.special import softmax

from keras_convmixer import class_names
from keras_convmixer.errors import visible
from keras_convmixer.fonts import font_for
from keras_convmixer.parts import architecture
from keras_convmixer.visualize.arguments import channels_last, chosen_blocks, image_for
from keras_convmixer.visualize.kernels import depthwise_kernels, patch_embeddings
from keras_convmixer.visualize.maps import class_activation_map, feature_maps, logits
from keras_convmixer.visualize.receptive_field import (
    effective_receptive_field,
    receptive_field,
    side_holding,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
_INK, _GREY = "#1f2328", "#656d76"
# against a class, neither, for it
_EVIDENCE = ("#1747d1", "#6f9bff", "#ffffff", "#ff7a66", "#d3121f")
# inches
_MARGIN, _GAP, _LABEL, _LINE = 0.28, 0.16, 0.26, 0.21
# of a tile of a mosaic, in pixels of the mosaic: each is magnified to at least this many
_TILE = 40
# A smaller image is shown pixel by pixel.
_SMALL = 64
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def plot_depthwise_kernels(model: keras.Model, blocks: Sequence[int] | None = None, most: int = 64) -> "Figure":
    """A mosaic of depthwise kernels for each of some blocks, as arXiv 2201.09792 shows them.

    Args:
        model: a `ConvMixer`, with its top or without.
        blocks: their numbers, from 0; default the first, the last and two between them.
        most: kernels of each block; of more, evenly spaced ones are taken.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or has no such block.
    """
    blocks = chosen_blocks(model, blocks)
    found = [depthwise_kernels(model, block) for block in blocks]
    words = (
        f"{_described(model)}. {_counted(most, len(found[0]))} kernels of each block. Grey is 0, light above, dark "
        "below; each kernel is scaled by its largest weight."
    )
    figure, panels = _page("Depthwise kernels", words, [f"block {block}" for block in blocks])
    for panel, kernels in zip(panels, found):
        panel.imshow(_mosaic(_grey(_signed(_some(kernels, most)))))
    return figure


def plot_patch_embeddings(model: keras.Model, most: int = 256) -> "Figure":
    """A mosaic of the patch embedding's filters, as arXiv 2201.09792 shows them.

    Args:
        model: a `ConvMixer`, with its top or without. Filters of other than three channels are shown as the sum of
            these, in grey.
        most: of more filters, as many evenly spaced ones are taken.

    Raises:
        ValueError: the model is not a ConvMixer of this package.
    """
    filters = patch_embeddings(model)
    shown = _some(filters, most)
    colours = (_signed(shown) + 1) / 2 if filters.shape[-1] == 3 else _grey(_signed(shown.sum(axis=-1)))
    words = (
        f"{_described(model)}. {_counted(most, len(filters))} filters. Grey is 0; each filter is scaled by its "
        "largest weight."
    )
    figure, (panel,) = _page("Patch embedding", words, [""], side=4.6)
    panel.imshow(_mosaic(colours))
    return figure


def plot_class_activation_maps(
    model: keras.Model,
    image: np.ndarray,
    *,
    class_index: int | None = None,
    classes: Sequence[str] | None = None,
    blocks: Sequence[int] | None = None,
    name: str = "",
) -> "Figure":
    """An image, and over it the `class_activation_map` of each of some blocks.

    The title says the likeliest class and its probability.

    Args:
        model: a `ConvMixer` with its top. image: as `feature_maps` takes it.
        class_index: the class of the map; default the likeliest.
        classes: names in the order of the outputs; default their numbers.
        blocks: their numbers, from 0; default the first, the last and two between them.
        name: of the image.

    Raises:
        ValueError: the model is not a ConvMixer with its top, has no such block or class, or takes other images.
    """
    blocks = chosen_blocks(model, blocks)
    probabilities = softmax(logits(model, image))
    best = int(probabilities.argmax())
    class_index = best if class_index is None else class_index
    maps = [class_activation_map(model, image, class_index, block) for block in blocks]
    title, asked = (_called(classes, i, probabilities[i]) for i in (best, class_index))
    asked = "it" if class_index == best else asked
    words = (
        f"Red speaks for {asked}, blue against it, by the output of each block, each by its own scale. "
        "The last block's is exact: its mean and the head's bias add up to the logit; the others are Grad-CAM."
    )
    figure, panels = _page(title, words, [name or "image", *(f"block {block}" for block in blocks)])
    pixels = _pixels(model, image)
    _show(panels[0], pixels)
    for panel, found in zip(panels[1:], maps):
        _show(panel, _tinted(pixels, found, architecture(model)["patch_size"]))
    return figure


def plot_feature_maps(
    model: keras.Model, image: np.ndarray, *, blocks: Sequence[int] | None = None, most: int = 16, name: str = ""
) -> "Figure":
    """An image, and of each of some blocks those channels of its output that vary most over it.

    Args:
        model: a `ConvMixer`, with its top or without. image: as `feature_maps` takes it.
        blocks: their numbers, from 0; default the first, the last and two between them.
        most: channels of each block.
        name: of the image.

    Raises:
        ValueError: the model is not a ConvMixer of this package, has no such block, or takes other images.
    """
    blocks = chosen_blocks(model, blocks)
    found = [feature_maps(model, image, block).transpose(2, 0, 1) for block in blocks]
    words = (
        f"{_described(model)}. Of the {len(found[0])} channels of each block's output the "
        f"{min(most, len(found[0]))} that vary most over the image; dark is the least value of each."
    )
    figure, panels = _page("Feature maps", words, [name or "image", *(f"block {block}" for block in blocks)])
    _show(panels[0], _pixels(model, image))
    for panel, channels in zip(panels[1:], found):
        order = np.argsort(-channels.std(axis=(1, 2)), kind="stable")[:most]
        panel.imshow(_mosaic(_coloured("magma", _stretched(channels[order]))))
    return figure


def plot_effective_receptive_field(
    model: keras.Model,
    images: Iterable[np.ndarray],
    *,
    blocks: Sequence[int] | None = None,
    of: str = "images",
) -> "Figure":
    """The `effective_receptive_field` of each of some blocks, in squares that hold 50 and 95 % of it.

    Args:
        model: a `ConvMixer`, with its top or without. images: as `effective_receptive_field` takes them.
        blocks: their numbers, from 0; default the first, the last and two between them.
        of: what to call the images.

    Raises:
        ValueError: there is no image; the model is not a ConvMixer of this package, or has no such block.
    """
    blocks, images = chosen_blocks(model, blocks), list(images)
    sizes = architecture(model)
    fields = [effective_receptive_field(model, images, block) for block in blocks]
    height, width = fields[0].shape
    words = (
        f"{_described(model)}. How much each pixel moves the middle place of a block's output, on average over "
        f"{len(images)} {of}; brightness is its square root. Squares hold 50 and 95 % of it; dashed is the "
        f"theoretical field, where it is smaller than the image of {height}×{width}."
    )
    figure, panels = _page("Effective receptive field", words, [f"block {block}" for block in blocks], foot=3)
    for panel, block, field in zip(panels, blocks, fields):
        panel.imshow(np.sqrt(field), cmap="inferno", vmin=0, interpolation="nearest")
        lines = []
        for share, colour in ((50, "#7ee787"), (95, "#79c0ff")):
            side = side_holding(field, share / 100, sizes["patch_size"])
            _square(panel, field, sizes, side, color=colour)
            lines.append(f"{share} % in {f'{side} px' if side <= max(field.shape) else 'the whole image'}")
        whole = receptive_field(model, block)
        if whole < min(height, width):
            _square(panel, field, sizes, whole, sizes["kernel_size"], color="white", linestyle=(0, (4, 3)))
        lines.append(f"theoretical {whole:,} px")
        panel.text(0, -0.03, "\n".join(lines), transform=panel.transAxes, va="top", color=_GREY, size=8.5)
    return figure


def _page(title, words, labels, side=2.3, foot=0):
    """A figure with a title, a few words below it, and a square panel for each label, four or five a row."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    columns = len(labels) if len(labels) <= 5 else 4
    rows, foot = -(-len(labels) // columns), foot * 0.17
    width = max(2 * _MARGIN + columns * (side + _GAP) - _GAP, 5.2)
    lines = textwrap.wrap(words, int((width - 2 * _MARGIN) * 15.8))
    head = _MARGIN + 0.32 + len(lines) * _LINE + 0.14
    label_height = _LABEL if any(labels) else 0
    step = label_height + side + foot + _GAP
    height = head + rows * step - _GAP + _MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def write(x, y, text, size, color=_INK, room=width - 2 * _MARGIN):
        path = font_for(text := visible(text))
        text = text if path else text.encode("ascii", "replace").decode()
        path = path or font_for(text)
        style = {"fontproperties": FontProperties(fname=path, size=size), "color": color, "parse_math": False}
        figure.text(x / width, 1 - y / height, _shortened(text, path, room * 72 / size), **style)

    write(_MARGIN, _MARGIN + 0.18, title, size=14)
    for i, line in enumerate(lines):
        write(_MARGIN, _MARGIN + 0.46 + i * _LINE, line, size=9, color=_GREY)
    panels = []
    for i, label in enumerate(labels):
        left, top = _MARGIN + i % columns * (side + _GAP), head + i // columns * step
        write(left, top + label_height - 0.08, label, size=9.5, room=side)
        place = (left / width, 1 - (top + label_height + side) / height, side / width, side / height)
        panel = figure.add_axes(place)
        panel.set_axis_off()
        panel.set_anchor("NW")
        panels.append(panel)
    return figure, panels


def _described(model):
    sizes = architecture(model)
    kernel, patch = (f"{side}×{side}" for side in (sizes["kernel_size"], sizes["patch_size"]))
    return f"ConvMixer-{sizes['dim']}/{sizes['depth']}, kernel {kernel}, patch {patch}"


def _counted(most, count):
    return f"{most} of the {count}" if most < count else f"All {count}"


def _called(classes, index, probability):
    """A class and its probability in words; by its number where it has no name that a font here can write."""
    name = class_names.display_name(classes[index]).partition(",")[0] if classes else f"class {index}"
    return f"{name if font_for(name) else f'class {index}'} ({100 * probability:.1f} %)"


def _shortened(text, path, room):
    """As much of a text as fits, in a font's file, into a width that is counted in the font's sizes."""
    font, kept = ImageFont.truetype(path, 100), text
    while font.getlength(kept) > 100 * room:
        kept = kept.removesuffix("...")[:-1] + "..."
    return kept


def _some(tiles, most):
    """At most so many, evenly spaced."""
    return tiles[np.linspace(0, len(tiles) - 1, min(most, len(tiles))).round().astype(int)]


def _signed(tiles):
    """Each scaled so that its largest magnitude is 1."""
    largest = np.abs(tiles).max(axis=tuple(range(1, tiles.ndim)), keepdims=True)
    return tiles / np.maximum(largest, np.finfo("float32").tiny)


def _stretched(tiles):
    """Each scaled to 0–1."""
    least, most = tiles.min(axis=(1, 2), keepdims=True), tiles.max(axis=(1, 2), keepdims=True)
    return (tiles - least) / np.maximum(most - least, np.finfo("float32").tiny)


def _grey(signed):
    return np.repeat((signed[..., None] + 1) / 2, 3, axis=-1)


def _coloured(name, values):
    import matplotlib

    return matplotlib.colormaps[name](values)[..., :3]


def _mosaic(tiles):
    """Tiles `(n, rows, columns, 3)` in 0–1 in a square of them, with white between them."""
    count, rows, columns, _ = tiles.shape
    zoom = -(-_TILE // max(rows, columns))
    gap = max(2, zoom * max(rows, columns) // 14)
    across = int(np.ceil(np.sqrt(count)))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    step_y, step_x = zoom * rows + gap, zoom * columns + gap
    sheet = np.ones((-(-count // across) * step_y - gap, across * step_x - gap, 3))
    for i, tile in enumerate(tiles):
        top, left = i // across * step_y, i % across * step_x
        sheet[top : top + zoom * rows, left : left + zoom * columns] = tile
    return sheet


def _pixels(model, image):
    """An image as `(height, width, 3)` in 0–1."""
    pixels = np.clip(channels_last(image_for(model, image)) / 255, 0, 1)
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1)


def _show(panel, pixels):
    panel.imshow(pixels, interpolation="nearest" if len(pixels) < _SMALL else "antialiased")


def _tinted(pixels, values, patch_size):
    """An image in pale grey, tinted by a map that covers whole patches of it."""
    from matplotlib.colors import LinearSegmentedColormap

    height, width, _ = pixels.shape
    rows, columns = (side * patch_size for side in values.shape)
    way = Image.Resampling.NEAREST if height < _SMALL else Image.Resampling.BICUBIC
    whole = np.zeros((height, width), np.float32)
    whole[:rows, :columns] = np.asarray(Image.fromarray(_signed(values[None])[0]).resize((columns, rows), way))
    grey = 0.6 + 0.4 * pixels @ _LUMINANCE
    tints = LinearSegmentedColormap.from_list("evidence", _EVIDENCE)
    return np.clip(tints((np.clip(whole, -1, 1) + 1) / 2)[..., :3] * grey[..., None], 0, 1)


def _square(panel, field, sizes, side, kernel_size=3, **style):
    """Draws the square of a side, in pixels, around the middle patch. Even kernels reach further down and right."""
    from matplotlib.patches import Rectangle

    patch = sizes["patch_size"]
    before = (side // patch - 1) * ((kernel_size - 1) // 2) // max(kernel_size - 1, 1)
    top, left = ((length // patch // 2 - before) * patch - 0.5 for length in field.shape)
    panel.add_patch(Rectangle((left, top), side, side, fill=False, linewidth=1.3, **style))
