"""A training as plain data: read strictly from YAML, overridden key by key, saved beside the run."""

import copy
import dataclasses
import json
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from keras_convmixer import files
from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.recipes.sections import Augmentation, Data, Model, Optimizer, Training, explained, section

# Weights of a variant, by name.
PUBLISHED = ("imagenet", "cifar10")
_MOST_BASES = 10
# A recipe has about a hundred values.
_MOST_VALUES = 10_000


@section
class Recipe:
    """Everything that decides a training. `Recipe.load("cifar10")` reads one; see `recipes/*.yaml`."""

    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    """What every draw follows from: weights, order, augmentation, dropout and what is held out."""
    data: Data = Data()
    model: Model = Model()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()

    @classmethod
    def load(cls, name_or_path: str | os.PathLike, overrides: Iterable[str] | dict = ()) -> "Recipe":
        """Reads a recipe.

        Args:
            name_or_path: one of `list_recipes()`, or the path of a YAML file or of a run's folder. Where it says
                `base:`, with another recipe's name or a path relative to its own folder, it has that one's values
                but for its own.
            overrides: strings like "training.epochs=5", each naming one key; or nested dictionaries, as
                {"training": {"epochs": 5}}.

        Raises:
            UserError (a ValueError): a key is unknown (the message names the nearest), or a value is not what it
                should be. FileNotFoundError: there is no such recipe.
        """
        values = _with_bases(name_or_path)
        if isinstance(overrides, dict):
            values = _merged(values, overrides)
        else:
            for override in overrides:
                values = _merged(values, _parsed_override(override, values))
        return cls.from_dict(values, source=str(name_or_path))

    @classmethod
    def from_dict(cls, values, source="recipe"):
        """Builds a recipe from nested dictionaries, checked as `load` does."""
        try:
            return pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            raise UserError(f"{source}: {explained(cls, error)}") from None

    def to_yaml(self) -> str:
        """The whole recipe, every default written out, as `load` reads it."""
        return yaml.safe_dump(pydantic.TypeAdapter(Recipe).dump_python(self, mode="json"), sort_keys=False)

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(pydantic.TypeAdapter(Recipe).dump_python(self, mode="json"), indent=2)

    def placed(self) -> "Recipe":
        """The same with its images and the weights that it starts from at absolute paths, where they lie at one."""
        placed, weights = self, self.model.weights
        if self.data.source is not None:
            source = files.absolute(self.data.source)
            placed = dataclasses.replace(placed, data=dataclasses.replace(self.data, source=source))
        if weights is not None and weights not in PUBLISHED and files.expanded(weights).exists():
            weights = str(files.expanded(weights).resolve())
            placed = dataclasses.replace(placed, model=dataclasses.replace(self.model, weights=weights))
        return placed

    def flat(self) -> dict:
        """Every value by its key, as "training.epochs"."""
        return _flat(dataclasses.asdict(self))

    def changed_from(self, other):
        """key → (value there, value here) of what two recipes disagree on."""
        here, there = self.flat(), other.flat()
        return {k: (there.get(k), here.get(k)) for k in {**here, **there} if here.get(k) != there.get(k)}

    def differences(self, other):
        """The same in lines such as "training.epochs: 25 here, 5 there"."""
        return [f"{k}: {here} here, {there} there" for k, (there, here) in self.changed_from(other).items()]


def default_recipe(source):
    """The name of the recipe for a data set where none was asked for: "finetune" for any but the digits."""
    return "digits" if source == "digits" else "finetune"


def list_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("keras_convmixer") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


class _Loader(yaml.SafeLoader):
    """Refuses what YAML itself forbids and PyYAML allows: a key given twice, of which it keeps the last value."""

    def compose_mapping_node(self, anchor):
        node, given = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            first = given.setdefault((key.tag, key.value), key)
            if first is not key:
                lines = f"{first.start_mark.line + 1} and {key.start_mark.line + 1}"
                raise yaml.YAMLError(f"the key {key.value!r:.200} is given twice, in lines {lines}")
        return node


def parsed_yaml(text):
    """The plain values in YAML text.

    Raises:
        yaml.YAMLError: it is none, a mapping has a key twice, or there are more than 10,000 values: with
            references, few lines make billions.
        RecursionError, ValueError: lists lie in each other too deep, or a date or number is out of range.
    """
    values = yaml.load(text, _Loader)
    count, left = 0, [values]
    while left:
        value = left.pop()
        count += 1
        if count > _MOST_VALUES:
            raise yaml.YAMLError(f"it has more than {_MOST_VALUES:,} values")
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return values


def _with_bases(name_or_path):
    """The values of a recipe, on top of those of the recipes that it names as its base."""
    layers, source = [], name_or_path
    while source is not None:
        if len(layers) == _MOST_BASES:
            raise UserError(f"{name_or_path}: more than {_MOST_BASES} recipes, each the base of the one before")
        text, folder = _read(source)
        layers.append(_parsed(text, source))
        base = layers[-1].pop("base", None)
        if base is not None and not isinstance(base, str):
            raise UserError(f"{source}: base must be a recipe's name or path, got {base!r:.200}")
        source = base if base is None or base in list_recipes() else folder / base
    values = {}
    for layer in reversed(layers):
        values = _merged(values, layer)
    return values


def _read(name_or_path):
    """The text of a recipe and the folder that it lies in."""
    if str(name_or_path) in list_recipes():
        file = resources.files("keras_convmixer") / "recipes" / f"{name_or_path}.yaml"
        return file.read_text(encoding="utf-8"), Path()
    path = files.expanded(name_or_path)
    if path.is_dir():
        path = path / "recipe.yaml"
    if not path.is_file():
        known = list_recipes()
        nearest = did_you_mean(name_or_path, known, otherwise="")
        hint = f"give a YAML file, a run's folder or one of {', '.join(known)}{nearest and '; ' + nearest}"
        raise FileNotFoundError(f"{name_or_path}: no such recipe; {hint}")
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except UnicodeDecodeError:
        raise UserError(f"{path} is not YAML: it is not text in UTF-8") from None


def yaml_mapping(text, source, expected):
    """A dictionary in YAML text. Raises UserError, saying of `source` what was expected, where there is none."""
    try:
        values = parsed_yaml(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{source} must hold {expected}")
    return values


def _parsed(text, source):
    values = yaml_mapping(text, source, "sections with keys, such as 'training:' with 'epochs: 5'")
    return {key: {} if value is None and key in _SECTIONS else value for key, value in values.items()}


def _parsed_override(override, values):
    """Nested dictionaries for "section.key=value"."""
    key, separator, text = str(override).partition("=")
    if not separator or not key:
        raise UserError(f"{override!r} is not an override; expected KEY=VALUE, such as training.epochs=5")
    *sections, name = key.strip().split(".")
    for section_name in sections:
        values = {} if values.get(section_name) is None else values[section_name]
        if not isinstance(values, dict):
            raise UserError(f"{override!r}: {section_name!r} is not a section")
    try:
        # An optimizer's arguments are one value: what is said of one of them leaves the others.
        nested = (values if sections[-1:] == ["arguments"] else {}) | {name: parsed_yaml(text)}
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UserError(f"{override!r}: {text!r} is not a YAML value") from None
    for section_name in reversed(sections):
        nested = {section_name: nested}
    return nested


def _merged(under, over):
    """Nested dictionaries, of which those on top win. An optimizer's `arguments` are one value."""
    merged = copy.copy(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(under.get(key), dict) and key != "arguments"
        merged[key] = _merged(under[key], value) if both else value
    return merged


def _flat(values, prefix=""):
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


_SECTIONS = {field.name for field in dataclasses.fields(Recipe)} - {"seed"}
