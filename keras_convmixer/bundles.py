"""A model folder as a contract: what training leaves, what every command takes, what is shipped.

model.keras          float32, stock Keras layers, ends in logits
preprocessing.json   what the model expects of an image
classes.txt          one class name a line, in the order of the outputs
recipe.yaml          the resolved recipe of its training, where there was one
metrics.json         how good it is, where that was measured
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_convmixer import class_names, files
from keras_convmixer.errors import UserError, first_line
from keras_convmixer.parts import architecture
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.variants import VARIANTS, create_model, get_variant


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model with what it takes to use it.

    Attributes:
        model: images `(batch, height, width, 3)`, RGB in 0–255, to logits `(batch, len(classes))`. A softmax at the
            end of the model that is given is left out.
        preprocessing: how an image file becomes the model's input.
        classes: class names in the order of the outputs; for ImageNet, WordNet ids.
        path: the folder it was read from, or None.
    """

    model: keras.Model
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    path: Path | None = None

    def __post_init__(self):
        object.__setattr__(self, "model", as_logits(self.model))
        object.__setattr__(self, "classes", class_names.check(self.classes, self.path or "classes"))


def load(
    model: "Bundle | keras.Model | str | os.PathLike", classes: Sequence[str] | str | os.PathLike | None = None
) -> Bundle:
    """The one door for models: whatever holds one, as a `Bundle`.

    Args:
        model: a model folder, with `model.keras`, `preprocessing.json` and `classes.txt` (a run of `train`, a
            shipped model); a name of `list_models()` that has published weights; a `.keras` file or a
            `keras.Model` of a ConvMixer of this package, trained in whatever way; or a `Bundle`.
        classes: class names in the order of the outputs, or the path of a file with one a line; for a file or a
            model alone, which do not know theirs. Default for 1,000 outputs: ImageNet's.

    Raises:
        FileNotFoundError: there is no such folder, file or variant, or a file is missing in it.
        UserError (a ValueError): a file in it is not what it should be, or class names are missing or too many.
    """
    if isinstance(model, Bundle):
        return model
    if isinstance(model, keras.Model):
        return around(model, classes)
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".keras":
            raise UserError(
                f"{path}: expected a model folder or a .keras file; `convmixer convert` makes one of weights"
            )
        return around(_load_keras(path), classes)
    if classes is not None:
        raise UserError(
            f"{model} has class names of its own: give classes with a .keras file or a keras.Model alone"
        )
    return _load_folder(path) if path.exists() else _published(str(model))


def _load_folder(path):
    for name in ("model.keras", "preprocessing.json", "classes.txt"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a model folder: it has no {name}")
    names = class_names.read(path / "classes.txt")
    preprocessing = Preprocessing.read(path / "preprocessing.json")
    bundle = Bundle(_load_keras(path / "model.keras"), preprocessing, names, path)
    if bundle.model.output_shape[-1] != len(names):
        outputs = bundle.model.output_shape[-1]
        raise UserError(f"{path}: the model has {outputs} outputs, classes.txt {len(names)} names")
    return bundle


def _published(name):
    if name not in VARIANTS:
        raise FileNotFoundError(f"{name}: no such model folder, nor a known model ({', '.join(VARIANTS)})")
    model = create_model(name, weights="imagenet", classifier_activation=None)
    return Bundle(model, get_variant(name).preprocessing, tuple(class_names.imagenet()))


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


def around(model, classes=None):
    """A `Bundle` for a model that came without its preprocessing and class names, such as a converted checkpoint.

    The preprocessing is that of the named variant of the same sizes, or ImageNet's, with the model's own input
    size, mean and std.

    Args:
        model: a ConvMixer of this package that takes RGB images and has a head.
        classes: its class names, or the path of a file with one a line. Default for 1,000 classes: ImageNet's.

    Raises:
        UserError (a ValueError): it takes no RGB images or has no head, or there are not as many names as outputs.
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
    outputs = model.output_shape[-1]
    if classes is None and outputs == len(class_names.imagenet()):
        classes = class_names.imagenet()
    if classes is None:
        raise UserError(
            f"{model.name} names {outputs} classes, but not how they are called: give classes=[...], or on "
            "the command line --classes FILE with one name a line"
        )
    names = class_names.read(classes) if isinstance(classes, (str, Path)) else tuple(map(str, classes))
    if len(names) != outputs:
        raise UserError(
            f"the model has {outputs} outputs, and there are {len(names)} class names: "
            "give one name for each output"
        )
    return Bundle(model, preprocessing, names)


def as_logits(model):
    """The same model without a softmax at its end. Layers and weights are shared where nothing changes."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.input, last.input, name=model.name)
    activation = keras.activations.serialize(getattr(last, "activation", keras.activations.linear))
    if activation == "linear" or not isinstance(last, (keras.layers.Dense, keras.layers.Activation)):
        return model
    if activation != "softmax":
        raise UserError(f"expected a model that ends in logits or softmax, not in {activation}")
    if isinstance(last, keras.layers.Activation):
        return keras.Model(model.input, last.input, name=model.name)
    bare = keras.layers.Dense.from_config(last.get_config() | {"activation": None})
    logits = keras.Model(model.input, bare(last.input), name=model.name)
    bare.set_weights(last.get_weights())
    return logits


def _load_keras(path):
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise on a damaged or foreign file.
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error
    for variable in model.variables:
        if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
            raise UserError(
                f"{path}: {variable.path} is not finite, as after a training that diverged: take another"
            )
    return model
