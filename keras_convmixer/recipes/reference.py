"""What each key of a recipe is: its type and range, its default and its meaning, all as `sections` says them."""

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap

import pydantic

from keras_convmixer.errors import UserError, did_you_mean
from keras_convmixer.recipes.recipe import Recipe
from keras_convmixer.reports import Report

SECTIONS = {field.name: field.type for field in dataclasses.fields(Recipe) if dataclasses.is_dataclass(field.type)}
_NAMES = {"string": ["text"], "boolean": ["true", "false"], "object": ["mapping"], "null": ["null"]}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TURNED = {">=": "<=", ">": "<"}
_HEAD = """\
# The keys of a recipe

`convmixer recipe keys --markdown` writes this page; `convmixer recipe show cifar10` prints a recipe with every key
at its value. Where a meaning says None, YAML says `null`. Besides these keys a file may begin with `base:` and a
recipe's name, or a path relative to the file's own folder: it then has that one's values but for its own.
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes:
        name: with its section, as in "training.epochs".
        type: what it may be, in words, with its range.
        default: as YAML has it.
        meaning: what it does, with its unit.
    """

    name: str
    type: str
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Reference(Report):
    """Some keys of a recipe, explained."""

    keys: tuple[Key, ...]

    def summary(self) -> list[dict]:
        return [dataclasses.asdict(key) for key in self.keys]

    def lines(self) -> list[str]:
        lines = []
        for key in self.keys:
            lines.append(f"{key.name}: {key.type} (default: {key.default})")
            lines += [f"    {line}" for line in textwrap.wrap(key.meaning, 96, break_on_hyphens=False)]
        return lines

    def as_markdown(self) -> str:
        """A page with a table for each section."""
        parts = [_HEAD]
        for section in ("", *SECTIONS):
            rows = [key for key in self.keys if key.name.rpartition(".")[0] == section]
            if rows and section:
                parts.append(f"## {section}\n\n{inspect.getdoc(SECTIONS[section])}\n")
            if rows:
                head = "| key | what it may be | default | meaning |\n|---|---|---|---|\n"
                parts.append(head + "".join(map(_row, rows)))
        return "\n".join(parts)


def reference(name: str | None = None) -> Reference:
    """All keys of a recipe, or those of a section, or one.

    Raises:
        UserError: there is no section or key of that name; the message names the nearest.
    """
    keys = _keys(Recipe)
    for section, cls in SECTIONS.items():
        keys += _keys(cls, f"{section}.")
    if name is None:
        return Reference(tuple(keys))
    found = tuple(key for key in keys if key.name == name or key.name.startswith(f"{name}."))
    if not found:
        hint = did_you_mean(name, [*SECTIONS, *(key.name for key in keys)], f"sections: {', '.join(SECTIONS)}")
        raise UserError(f"{name}: no section or key of a recipe; {hint}")
    return Reference(found)


def _keys(cls, prefix=""):
    """The keys of a section, or of the recipe those that are in none."""
    schemas, defaults = pydantic.TypeAdapter(cls).json_schema()["properties"], cls()
    meanings = _meanings(cls)
    return [
        Key(
            prefix + field.name,
            _type(schemas[field.name]),
            _plain(getattr(defaults, field.name)),
            meanings.get(field.name, ""),
        )
        for field in dataclasses.fields(cls)
        if field.name not in SECTIONS
    ]


def _meanings(cls):
    """Key → the text below it, in the source of its class: Python itself keeps none of a field."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        field.target.id: " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _type(schema):
    """A JSON schema in words."""
    *others, last = _alternatives(schema)
    return f"{', '.join(others)} or {last}" if others else last


def _alternatives(schema):
    if "anyOf" in schema:
        return [name for one in schema["anyOf"] for name in _alternatives(one)]
    if "const" in schema or "enum" in schema:
        return schema.get("enum") or [schema["const"]]
    if "prefixItems" in schema:
        return [f"[{', '.join(map(_type, schema['prefixItems']))}]"]
    if "items" in schema:
        return [f"list of {_type(schema['items'])}"]
    return _NAMES.get(schema["type"]) or [_range(schema)]


def _range(schema):
    """A number and its bounds, as "number >= 0" or "0 <= number < 1"."""
    bounds = [(sign, f"{schema[key]:,}".removesuffix(".0")) for key, sign in _BOUNDS.items() if key in schema]
    if len(bounds) == 2:
        (above, least), (below, most) = bounds
        return f"{least} {_TURNED[above]} {schema['type']} {below} {most}"
    return " ".join([schema["type"], *(word for bound in bounds for word in bound)])


def _plain(value):
    return value if isinstance(value, str) else json.dumps(value)


def _row(key):
    cells = (f"`{key.name}`", key.type, f"`{key.default}`", key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
