"""Figures of a model: opaque, so that they can be read on any ground, each with its title and what it shows.

A figure is a `matplotlib.figure.Figure` that pyplot knows nothing of; `figure.savefig("name.png")` writes it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from PIL import Image
from scipy.special import softmax

from keras_convmixer import class_names
from keras_convmixer.fonts import font_for
from keras_convmixer.parts import architecture
from keras_convmixer.visualize.arguments import channels_last, chosen_blocks, image_for
from keras_convmixer.visualize.kernels import depthwise_kernels, patch_embeddings
from keras_convmixer.visualize.maps import class_activation_map, feature_maps, logits
from keras_convmixer.visualize.page import GREY, page
from keras_convmixer.visualize.receptive_field import effective_receptive_field, receptive_field, side_holding
from keras_convmixer.visualize.tiles import coloured, grey, mosaic, signed, some, stretched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# against a class, neither, for it
_EVIDENCE = ("#1747d1", "#6f9bff", "#ffffff", "#ff7a66", "#d3121f")
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
    figure, panels = page("Depthwise kernels", words, [f"block {block}" for block in blocks])
    for panel, kernels in zip(panels, found):
        panel.imshow(mosaic(grey(signed(some(kernels, most)))))
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
    shown = some(filters, most)
    colours = (signed(shown) + 1) / 2 if filters.shape[-1] == 3 else grey(signed(shown.sum(axis=-1)))
    words = (
        f"{_described(model)}. {_counted(most, len(filters))} filters. Grey is 0; each filter is scaled by its "
        "largest weight."
    )
    figure, (panel,) = page("Patch embedding", words, [""], side=4.6)
    panel.imshow(mosaic(colours))
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
    pixels = _pixels(model, image)
    labels = [name or "image", *(f"block {block}" for block in blocks)]
    figure, panels = page(title, words, labels, aspect=pixels.shape[0] / pixels.shape[1])
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
    pixels = _pixels(model, image)
    labels = [name or "image", *(f"block {block}" for block in blocks)]
    figure, panels = page("Feature maps", words, labels, aspect=pixels.shape[0] / pixels.shape[1])
    _show(panels[0], pixels)
    for panel, channels in zip(panels[1:], found):
        order = np.argsort(-channels.std(axis=(1, 2)), kind="stable")[:most]
        panel.imshow(mosaic(coloured("magma", stretched(channels[order]))))
    return figure


def plot_effective_receptive_field(
    model: keras.Model,
    images: Iterable[np.ndarray],
    *,
    blocks: Sequence[int] | None = None,
    of: str = "",
) -> "Figure":
    """The `effective_receptive_field` of each of some blocks, in squares that hold 50 and 95 % of it.

    Args:
        model: a `ConvMixer`, with its top or without. images: as `effective_receptive_field` takes them.
        blocks: their numbers, from 0; default the first, the last and two between them.
        of: what the images are; default how many.

    Raises:
        ValueError: there is no image; the model is not a ConvMixer of this package, or has no such block.
    """
    blocks, images = chosen_blocks(model, blocks), list(images)
    sizes = architecture(model)
    fields = [effective_receptive_field(model, images, block) for block in blocks]
    height, width = fields[0].shape
    of = of or ("1 image" if len(images) == 1 else f"{len(images)} images")
    words = (
        f"{_described(model)}. How much each pixel moves the middle place of a block's output, on average over "
        f"{of}; brightness is its square root. Squares hold 50 and 95 % of it; dashed is the theoretical field, "
        f"where it is smaller than the image of {height}×{width}."
    )
    labels = [f"block {block}" for block in blocks]
    figure, panels = page("Effective receptive field", words, labels, aspect=height / width, foot=3)
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
        panel.text(0, -0.03, "\n".join(lines), transform=panel.transAxes, va="top", color=GREY, size=8.5)
    return figure


def _described(model):
    sizes = architecture(model)
    kernel, patch = (f"{side}×{side}" for side in (sizes["kernel_size"], sizes["patch_size"]))
    return f"ConvMixer-{sizes['dim']}/{sizes['depth']}, kernel {kernel}, patch {patch}"


def _counted(most, count):
    return f"{most} of the {count}" if most < count else f"All {count}"


def _called(classes, index, probability):
    """A class and its probability in words; by its number where it has no name that a font here can write."""
    name = classes[index] if classes else f"class {index}"
    if name in class_names.imagenet():
        name = class_names.imagenet()[name].partition(", ")[0]
    return f"{name if font_for(name) else f'class {index}'} ({100 * probability:.1f} %)"


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
    whole[:rows, :columns] = np.asarray(Image.fromarray(signed(values[None])[0]).resize((columns, rows), way))
    shade = 0.6 + 0.4 * pixels @ _LUMINANCE
    tints = LinearSegmentedColormap.from_list("evidence", _EVIDENCE)
    return np.clip(tints((np.clip(whole, -1, 1) + 1) / 2)[..., :3] * shade[..., None], 0, 1)


def _square(panel, field, sizes, side, kernel_size=3, **style):
    """Draws the square of a side, in pixels, around the middle patch. Even kernels reach further down and right."""
    from matplotlib.patches import Rectangle

    patch = sizes["patch_size"]
    before = (side // patch - 1) * ((kernel_size - 1) // 2) // max(kernel_size - 1, 1)
    top, left = ((length // patch // 2 - before) * patch - 0.5 for length in field.shape)
    panel.add_patch(Rectangle((left, top), side, side, fill=False, linewidth=1.3, **style))
