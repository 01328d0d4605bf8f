"""A model folder as a contract: what training leaves, what every command takes, what is shipped.

model.keras          float32, stock Keras layers, ends in logits
preprocessing.json   what the model expects of an image
classes.txt          one class name a line, in the order of the outputs
recipe.yaml          the resolved recipe of its training, where there was one
metrics.json         how good it is, where that was measured
"""

import dataclasses
import json
from pathlib import Path

import keras

from keras_convmixer import class_names, files
from keras_convmixer.errors import UserError
from keras_convmixer.model import architecture
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.variants import VARIANTS, create_model, get_variant


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model with what it takes to use it.

    Attributes:
        model: images `(batch, height, width, 3)`, RGB in 0–255, to logits `(batch, len(classes))`.
        preprocessing: how an image file becomes the model's input.
        classes: class names in the order of the outputs; for ImageNet, WordNet ids.
        path: the folder it was read from, or None.
    """

    model: keras.Model
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    path: Path | None = None


def load(path_or_name):
    """Loads a model folder, or a named variant with its published weights.

    Args:
        path_or_name: a folder with `model.keras`, `preprocessing.json` and `classes.txt` (a run of `train`, a
            shipped model), or a name of `list_models()` that has published weights.

    Returns:
        A `Bundle`. Its model ends in logits.

    Raises:
        FileNotFoundError: there is no such folder or variant, or a file is missing in it.
        ValueError: a file in it is not what it should be.
    """
    path = Path(path_or_name)
    if not path.exists() and str(path_or_name) in VARIANTS:
        model = create_model(path_or_name, weights="imagenet", classifier_activation=None)
        return Bundle(model, get_variant(path_or_name).preprocessing, tuple(class_names.imagenet()))
    if not path.exists():
        raise FileNotFoundError(f"{path_or_name}: no such model folder, nor a known model ({', '.join(VARIANTS)})")
    for name in ("model.keras", "preprocessing.json", "classes.txt"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a model folder: it has no {name}")
    names = class_names.read(path / "classes.txt")
    preprocessing = Preprocessing.read(path / "preprocessing.json")
    model = as_logits(_load_keras(path / "model.keras"))
    if model.output_shape[-1] != len(names):
        raise UserError(f"{path}: the model has {model.output_shape[-1]} outputs, classes.txt {len(names)} names")
    return Bundle(model, preprocessing, names, path)


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


def around(model, classes_file=None):
    """A `Bundle` for a model that came without its preprocessing and class names, such as a converted checkpoint.

    The preprocessing is that of the named variant of the same sizes, or ImageNet's, with the model's own input
    size, mean and std.

    Args:
        model: a ConvMixer of this package that takes RGB images and ends in logits.
        classes_file: path of its class names, one a line. Default: ImageNet's, for a model of 1,000 classes.

    Raises:
        ValueError: it takes no RGB images or has no head, or there are not as many names as it has outputs.
    """
    found = architecture(model)
    if not found["include_preprocessing"]:
        raise UserError(f"{model.name} does not normalise its images: build it with include_preprocessing")
    if model.input_shape[-1] != 3 or not found["include_top"]:
        raise UserError(
            f"a model folder is for RGB images and a head that names classes; this model takes "
            f"{model.input_shape[-1]} channels and has {'a' if found['include_top'] else 'no'} head: "
            "write it to a .keras file instead"
        )
    sizes = {name: found[name] for name in ("dim", "depth", "kernel_size", "patch_size")}
    alike = (v for v in VARIANTS.values() if sizes == {name: getattr(v, name) for name in sizes})
    preprocessing = next((v.preprocessing for v in alike), Preprocessing())
    # What the model computes with, without the rounding of its reciprocals.
    normalisation = {name: tuple(round(value, 9) for value in found[name]) for name in ("mean", "std")}
    preprocessing = dataclasses.replace(preprocessing, input_size=model.input_shape[1:3], **normalisation)
    names = class_names.read(classes_file) if classes_file else tuple(class_names.imagenet())
    if len(names) != model.output_shape[-1]:
        raise UserError(
            f"the model has {model.output_shape[-1]} outputs, and there are {len(names)} class names: "
            "give a file with one name a line for each output"
        )
    return Bundle(model, preprocessing, names)


def as_logits(model):
    """The same model without a softmax at its end. Layers and weights are shared where nothing changes."""
    head = model.layers[-1]
    activation = keras.activations.serialize(getattr(head, "activation", keras.activations.linear))
    if activation == "linear":
        return model
    if activation != "softmax":
        raise UserError(f"expected a model that ends in logits or softmax, not in {activation}")
    bare = keras.layers.Dense.from_config(head.get_config() | {"activation": None})
    logits = keras.Model(model.input, bare(head.input), name=model.name)
    bare.set_weights(head.get_weights())
    return logits


def _load_keras(path):
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise on a damaged or foreign file.
        first_line = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be loaded: {first_line}") from error
