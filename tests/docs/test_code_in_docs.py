"""What the documentation has in blocks of code: commands that the parser takes, Python that type-checks, YAML."""

import re
import subprocess
import sys

import nbformat
import pytest
from code_blocks import ROOT, blocks, commands

from keras_convmixer.cli.main import parser
from keras_convmixer.experiments.sweep import Grid
from keras_convmixer.recipes import Recipe

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "saved_models").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECIPES = sorted((ROOT / "keras_convmixer" / "recipes").glob("*.yaml"))
PYTHON_UNMARKED = re.compile(r"^(import|from) keras_convmixer\b", re.MULTILINE)


def code(path):
    """The blocks of a page, the cells of a notebook, the comments above a recipe, or the Makefile."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return [cell.source for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    if path.suffix == ".yaml":
        return [re.sub("(?m)^# *", "", text)]
    return [re.sub(r"\$\((\w+)\)", r"\1", text)] if path.name == "Makefile" else blocks(text)


def refusal(words, capsys):
    """What the parser has against these words, or None."""
    try:
        arguments = parser().parse_args(words)
    except SystemExit as end:
        return capsys.readouterr().err if end.code else None
    for override in getattr(arguments, "set", []):
        Recipe.load("finetune", [override])
    return None


def name(path):
    return str(path.relative_to(ROOT))


def test_commands_are_found_in_what_surrounds_them():
    text = """\
! convmixer models
.venv\\Scripts\\convmixer predict runs\\mine a.png  # a comment
BIN/convmixer recipe keys --markdown > page.md
convmixer train --recipe x.yaml \\
    --set 'a.b=[1, 2]' | tee log
convmixer: an error
pip install keras_convmixer
"""
    assert commands(text) == [
        ["models"],
        ["predict", "runs\\mine", "a.png"],
        ["recipe", "keys", "--markdown"],
        ["train", "--recipe", "x.yaml", "--set", "a.b=[1, 2]"],
    ]


@pytest.mark.parametrize("words", [["predikt", "m", "a.png"], ["export", "m"], ["train", "--epochs", "3"]])
def test_a_wrong_command_is_refused(words, capsys):
    assert "usage: convmixer" in refusal(words, capsys)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS, *RECIPES, ROOT / "Makefile"], ids=name)
def test_every_command_is_one(path, capsys):
    found = [words for block in code(path) for words in commands(block)]
    assert {" ".join(words): why for words in found if (why := refusal(words, capsys))} == {}
    assert len(found) >= {"README.md": 15, "Makefile": 5, "keras_convmixer/recipes/cifar10.yaml": 1}.get(
        name(path), 0
    )


def test_the_examples_in_the_help_are_commands(capsys):
    helps = [parser().format_help()]
    for words in commands(helps[0]):
        with pytest.raises(SystemExit):
            parser().parse_args([words[0], "--help"])
        helps.append(capsys.readouterr().out)
    found = [words for text in helps for words in commands(text)]
    assert len(found) > 10
    assert {" ".join(words): why for words in found if (why := refusal(words, capsys))} == {}


def test_python_is_marked_as_python():
    for path in PAGES:
        unmarked = [text for text in blocks(path.read_text(encoding="utf-8"), "") if PYTHON_UNMARKED.search(text)]
        assert unmarked == [], f"{name(path)}: begin it with ```python"


def test_python_type_checks(tmp_path):
    """A page's blocks are one program, as a reader types them one after another."""
    programs = []
    for path in PAGES:
        parts = blocks(path.read_text(encoding="utf-8"), "python")
        if parts:
            programs.append(tmp_path / f"{re.sub(r'[^a-z0-9]', '_', name(path).lower())}.py")
            programs[-1].write_text("\n".join(parts), encoding="utf-8")
    assert len(programs) > 5
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    # What a page imports besides may be absent here, or without types.
    command += ["--check-untyped-defs", "--disable-error-code", "import-untyped"]
    command += ["--disable-error-code", "import-not-found", "--disable-error-code", "no-redef", *programs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_recipes_and_grids_are_ones(tmp_path):
    found = [(path, text) for path in PAGES for text in blocks(path.read_text(encoding="utf-8"), "yaml")]
    assert found
    for path, text in found:
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
        if re.search(r"^(grid|runs):", text, re.MULTILINE):
            assert Grid.load(tmp_path / "own.yaml").recipes(), name(path)
        else:
            assert Recipe.load(tmp_path / "own.yaml"), name(path)
