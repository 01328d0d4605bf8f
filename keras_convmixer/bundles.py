"""A model folder as a contract: what training leaves, what every command takes, what is shipped.

model.keras          float32, stock Keras layers, ends in logits
preprocessing.json   what the model expects of an image
classes.txt          one class name a line, in the order of the outputs
recipe.yaml          the resolved recipe of its training, where there was one
metrics.json         how good it is, where that was measured
training_images.npy  fingerprints of the images it has learned from, see `data.fingerprints`
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_convmixer import class_names, files, shipped
from keras_convmixer.errors import UserError
from keras_convmixer.model import channels_of
from keras_convmixer.parts import architecture
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.variants import VARIANTS, alike, create_model, get_variant
from keras_convmixer.weights.load import load_model

_EXPECTED = "expected a model of one image that ends in logits or softmax of classes"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model with what it takes to use it.

    Attributes:
        model: images `(batch, height, width, 3)`, RGB in 0–255, to logits `(batch, len(classes))`. A model given
            with a softmax at its end becomes the same one without, see `as_logits`.
        preprocessing: how an image file becomes the model's input.
        classes: class names in the order of the outputs; for ImageNet, WordNet ids.
        path: the folder it was read from, or None.

    Raises:
        ValueError: the model ends in neither logits nor softmax, or has not as many outputs as there are classes.
    """

    model: keras.Model
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    path: Path | None = None

    def __post_init__(self):
        object.__setattr__(self, "model", as_logits(self.model))
        object.__setattr__(self, "classes", class_names.check(self.classes, self.path or "classes"))
        outputs = self.model.output_shape[-1]
        if outputs != len(self.classes):
            raise UserError(
                f"the model has {outputs} outputs, and there are {len(self.classes)} class names: "
                "give one for each output, in their order"
            )
        size = _input_size(self.model)
        if None not in size and size != self.preprocessing.input_size:
            ours, theirs = ("×".join(map(str, sides)) for sides in (size, self.preprocessing.input_size))
            raise UserError(f"the model takes images of {ours}, and its preprocessing makes them {theirs}")


def load(
    model: "Bundle | keras.Model | str | os.PathLike", classes: Sequence[str] | str | os.PathLike | None = None
) -> Bundle:
    """Makes a `Bundle` of whatever stands for a model.

    Args:
        model: a folder with `model.keras`, `preprocessing.json` and `classes.txt` (a run of `train`); the name of
            a trained model that comes with the package (see `shipped`), or of one of `list_models()` that has
            published weights; a `keras.Model` or the path of its `.keras` file (`model.keras` in a model folder
            stands for the folder); or a `Bundle`. Of a Keras model, which must be a `ConvMixer` that normalises its
            images, the preprocessing is its own normalisation and input size, and else that of the named variant
            of its sizes, or ImageNet's.
        classes: class names in the order of the outputs, or the path of a file with one a line. They go before
            those that a folder or a `Bundle` has. A Keras model needs them, unless it has 1,000 outputs: these are
            then taken for ImageNet's.

    Returns:
        A `Bundle`. Its model ends in logits.

    Raises:
        FileNotFoundError: there is no such folder, file or variant, or a file is missing in the folder.
        ValueError: a file is not what it should be, or the model not one that can be used, or its classes have no
            names or not as many as it has outputs.
    """
    classes = None if classes is None else class_names.listed(classes)
    if isinstance(model, keras.Model):
        return _around(model, model.name, classes)
    if isinstance(model, Bundle):
        return dataclasses.replace(model, classes=classes or model.classes)
    if folder := shipped.located(model):
        return _read(folder, classes)
    path = files.expanded(model)
    if path.is_file() and path.suffix == ".keras":
        if is_of_folder(path):
            return _read(path.parent, classes)
        return _around(load_model(path), path, classes)
    if path.exists():
        raise UserError(f"{path} is neither a model folder nor a .keras file; of a checkpoint, `convert` makes one")
    if str(model) in VARIANTS:
        made = create_model(model, weights="imagenet", classifier_activation=None)
        return Bundle(made, get_variant(model).preprocessing, classes or tuple(class_names.imagenet()))
    known = ", ".join(dict.fromkeys([*shipped.names(), *VARIANTS]))
    raise FileNotFoundError(f"{model}: no such model folder, nor a known model ({known})")


def save(bundle, path, *, recipe=None, metrics=None):
    """Writes a model folder, each file whole or not at all.

    Args:
        bundle: the `Bundle` to write. path: the folder, made if need be.
        recipe: text of `recipe.yaml`, or None to leave that file as it is.
        metrics: a dictionary for `metrics.json`, or None to leave that file as it is.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with files.replacing(path / "model.keras") as temporary:
        bundle.model.save(temporary)
    files.write_text(path / "preprocessing.json", bundle.preprocessing.to_json())
    files.write_text(path / "classes.txt", "".join(f"{name}\n" for name in bundle.classes))
    if recipe is not None:
        files.write_text(path / "recipe.yaml", recipe)
    if metrics is not None:
        files.write_text(path / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def is_of_folder(path):
    """Whether a .keras file is that of a model folder, and stands for it."""
    return path.name == "model.keras" and (path.parent / "preprocessing.json").is_file()


def check_new(path):
    """Raises UserError where a model or a run lies already, whose other files would not be the new model's."""
    if shipped.is_taken(path):
        raise UserError(f"{path} holds a model or a run already: give --out a new folder")


def as_logits(model):
    """The same model without a softmax at its end.

    Layers and weights are shared where nothing changes. A classifier of one's own, a `Dense` upon a `ConvMixer`
    without its top, becomes the `head` of one with it, with a bias of zeros where it has none.

    Raises:
        ValueError: the model does not end in logits or softmax of classes.
    """
    inputs, outputs = (getattr(model, name, None) or () for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs: {_EXPECTED}")
    (images,), (output,) = inputs, outputs
    last, activation = _last(output)
    if activation == "softmax" and not isinstance(last, layers.Dense):
        output = last.input
        last, activation = _last(output)
        activation = "linear" if activation == "linear" else f"{activation} and softmax"
    if activation not in ("linear", "softmax"):
        raise UserError(f"{model.name}: {_EXPECTED}, not in {activation}")
    own_head = isinstance(last, layers.Dense) and "head" not in {layer.name for layer in model.layers}
    without_bias = isinstance(last, layers.Dense) and not last.use_bias
    if activation == "softmax" or own_head or without_bias:
        bare = layers.Dense.from_config(last.get_config() | {"activation": None, "name": "head", "use_bias": True})
        output = bare(last.input)
        bare.set_weights([*last.get_weights(), *[np.zeros(last.units)] * without_bias])
    # A dictionary of one output is made plain, too. A Sequential has none, and does not know its input by name.
    is_plain = output is outputs[0] and (
        isinstance(model, keras.Sequential) or (model.input is images and model.output is output)
    )
    return model if is_plain else keras.Model(images, output, name=model.name)


def _last(output):
    """What makes a model's output, and the name of its activation."""
    last = output._keras_history.operation
    if isinstance(last, layers.Softmax):
        return last, "softmax"
    return last, keras.activations.serialize(getattr(last, "activation", keras.activations.linear))


def _input_size(model):
    """(height, width) of a model's images, either of which may be None."""
    shape = model.inputs[0].shape[1:]
    return tuple(shape[1:] if keras.config.image_data_format() == "channels_first" else shape[:2])


def _read(path, classes):
    """The `Bundle` in a folder."""
    for name in ("model.keras", "preprocessing.json", "classes.txt"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a model folder: it has no {name}")
    classes = classes or class_names.read(path / "classes.txt")
    preprocessing, model = Preprocessing.read(path / "preprocessing.json"), load_model(path / "model.keras")
    try:
        return Bundle(model, preprocessing, classes, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _around(model, name, classes):
    """A `Bundle` for a Keras model that came without its preprocessing."""
    model = as_logits(model)
    found = architecture(model)
    if not found["include_preprocessing"]:
        raise UserError(
            f"{name} does not normalise its images: build its like with include_preprocessing=True and the mean "
            "and std that it was trained with, and take its weights over with set_weights"
        )
    shape = model.inputs[0].shape[1:]
    channels = channels_of(shape)
    if channels != 3 or not found["include_top"]:
        raise UserError(
            f"a model for image files takes RGB images and has a head that names classes; {name} takes {channels} "
            f"channels and has {'a' if found['include_top'] else 'no'} head: only a .keras file holds such a model"
        )
    if classes is None and model.output_shape[-1] == len(class_names.imagenet()):
        classes = tuple(class_names.imagenet())
    if classes is None:
        raise UserError(
            f"{name} does not say what its {model.output_shape[-1]} outputs are: give classes=[...], or --classes "
            "and a file with one name a line, in their order"
        )
    variant = alike(found)
    preprocessing = variant.preprocessing if variant else Preprocessing()
    size = _input_size(model)
    # What the model computes with, without the rounding of its reciprocals.
    mean, std = (tuple(round(value, 9) for value in found[name]) for name in ("mean", "std"))
    size = preprocessing.input_size if None in size else size
    return Bundle(model, dataclasses.replace(preprocessing, input_size=size, mean=mean, std=std), classes)
