"""The figures of a model, and of image files as it sees them, as PNG files in a folder."""

import dataclasses
import itertools
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from scipy.special import softmax

from keras_convmixer import bundles, class_names, files
from keras_convmixer.errors import UserError
from keras_convmixer.exported.loaded import ExportedBundle, format_of
from keras_convmixer.inference.image_files import find_images
from keras_convmixer.inference.prediction import Prediction, decoded
from keras_convmixer.parts import parts
from keras_convmixer.progress import Progress
from keras_convmixer.reports import Report
from keras_convmixer.visualize import figures
from keras_convmixer.visualize.arguments import chosen_blocks
from keras_convmixer.visualize.maps import logits

# that the effective receptive field is an average over: as many runs as Luo et al. take, and fewer of noise
MOST_IMAGES, NOISE_IMAGES = 20, 8


@dataclasses.dataclass(frozen=True)
class Figures(Report):
    """What `save_figures` wrote.

    Attributes:
        files: of the model alone. images: for each image file a `Prediction` of its likeliest class, or its error,
            and the files of its figures.
    """

    files: tuple[Path, ...]
    images: tuple[tuple[Prediction, tuple[Path, ...]], ...]

    def summary(self) -> dict:
        """`files`, all that were written; `images`, each with its `path`, and `classes` and `files` or `error`."""
        images = [
            prediction.summary() | ({} if prediction.error else {"files": list(map(str, own))})
            for prediction, own in self.images
        ]
        return {
            "files": [str(path) for own in (self.files, *(own for _, own in self.images)) for path in own],
            "images": images,
        }

    def lines(self) -> list[str]:
        """The files, those of an image below its name, its class and its probability, or its error."""
        lines = [f"wrote {path}" for path in self.files]
        for prediction, own in self.images:
            said = f"error: {prediction.error}"
            if not prediction.error:
                said = "{}, {:.1%}".format(*prediction.classes[0])
            lines += [f"{prediction.path}: {said}", *(f"  wrote {path}" for path in own)]
        return lines


def save_figures(
    model: bundles.Bundle | keras.Model | str | os.PathLike,
    out: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike] = (),
    *,
    classes: Sequence[str] | str | os.PathLike | None = None,
    of_class: str | int | None = None,
    blocks: Sequence[int] | None = None,
) -> Figures:
    """Writes figures of a model, and of image files as it sees them, as PNG files into a folder.

    Of the model patch_embedding.png, depthwise_kernels.png and effective_receptive_field.png, the last an average
    over the first 20 of the images, or without any over 8 of noise; of each image
    NAME_class_activation.png and NAME_features.png, NAME being that of its file.

    Args:
        model, classes: what `bundles.load` takes: a folder, a name, a `keras.Model` with class names...
        out: the folder, new or empty.
        images: what `predict` takes as its paths.
        of_class: the class of the maps, by its name or else its number from 0; default each image's likeliest.
        blocks: numbers, from 0, of the blocks to show; default the first, the last and two between them.

    Raises:
        FileNotFoundError: there is no such model, or nothing is there at any of the paths. ValueError: `out` is
        not empty, there is no such block or class, or the model is not a `ConvMixer` of this package.
    """
    out = _new_folder(out)
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    with tempfile.TemporaryDirectory() as room:
        found = find_images(images, Path(room))
        bundle = _load(model, classes)
        blocks = chosen_blocks(bundle.model, blocks)
        class_index = None if of_class is None else class_names.index_of(of_class, bundle.classes)
        own = (
            _write(out / "patch_embedding.png", figures.plot_patch_embeddings(bundle.model)),
            _write(out / "depthwise_kernels.png", figures.plot_depthwise_kernels(bundle.model, blocks)),
        )
        seen, kept, names = [], [], _names(found)
        with Progress("drawing", len(found), unit=" images") as progress:
            for file, name, (pixels, error) in zip(found, names, _pixels(found, bundle.preprocessing)):
                if error is None:
                    kept += [pixels] if len(kept) < MOST_IMAGES else []
                    seen.append(_of_image(bundle, pixels, file.name, out / name, class_index, blocks))
                else:
                    seen.append((Prediction(file.name, error=error), ()))
                progress.update()
        field = figures.plot_effective_receptive_field(
            bundle.model,
            kept or _noise(bundle),
            blocks=blocks,
            of="" if kept else f"{NOISE_IMAGES} images of noise",
        )
        return Figures((*own, _write(out / "effective_receptive_field.png", field)), tuple(seen))


def _new_folder(out):
    out = files.expanded(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a new or empty folder for the figures")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: give a new or empty folder for the figures")
    return out


def _load(model, classes):
    """The `Bundle` of what stands for a model that can be looked into."""
    path = files.expanded(model) if isinstance(model, (str, os.PathLike)) else None
    if isinstance(model, ExportedBundle) or (path and format_of(path)):
        raise UserError(
            f"{path or 'this'} is an exported file, which cannot be looked into: give the model it was made of"
        )
    bundle = bundles.load(model, classes)
    parts(bundle.model)
    return bundle


def _pixels(found, preprocessing):
    """Of each `ImageFile` a pair of it as the model takes it and None, or of None and its error."""
    read = decoded([file.path for file in found if file.error is None], files.read_regular, preprocessing)
    for file in found:
        pixels, error = (None, file.error) if file.error is not None else next(read)
        yield _as_configured(pixels), error


def _of_image(bundle, pixels, name, start, class_index, blocks):
    """Writes an image's figures; gives its `Prediction` and their paths."""
    probabilities = softmax(logits(bundle.model, pixels))
    best = int(probabilities.argmax())
    prediction = Prediction(name, ((class_names.display_name(bundle.classes[best]), float(probabilities[best])),))
    words = {"blocks": blocks, "name": Path(name).name}
    maps = figures.plot_class_activation_maps(
        bundle.model, pixels, class_index=class_index, classes=bundle.classes, **words
    )
    return prediction, (
        _write(start.with_name(f"{start.name}_class_activation.png"), maps),
        _write(
            start.with_name(f"{start.name}_features.png"), figures.plot_feature_maps(bundle.model, pixels, **words)
        ),
    )


def _names(found):
    """What to begin the names of each image's figures with: each once, and such as any file system takes."""
    taken, names = set(), []
    for file in found:
        stem = re.sub(r"[^\w.-]+", "_", Path(file.name).stem).strip("._-")[:60] or "image"
        numbered = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2)))
        names.append(next(name for name in numbered if name.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


def _noise(bundle):
    shape = (NOISE_IMAGES, *bundle.preprocessing.input_size, 3)
    return [_as_configured(image) for image in np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)]


def _as_configured(pixels):
    first = keras.config.image_data_format() == "channels_first"
    return np.moveaxis(pixels, -1, 0) if first and pixels is not None else pixels


def _write(path, figure):
    with files.replacing(path) as temporary:
        figure.savefig(temporary)
    return path
