"""The notebooks: as they are saved, and, among the slow tests, run."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
PLACE = re.compile(r"/(?:home|root|tmp|work|usr|Users)/|/content/|site-packages|\b[A-Z]:\\")
# what each leaves in the folder that it runs in
MADE = {
    "imagenet_weights": "runs/negatives/report.html",
    "look_inside": "figures/digit_class_activation.png",
    "plain_keras": "exported/model.tflite",
    "quickstart": "exported/model_int8.tflite",
    "tflite_for_mobile": "exported.zip",
    "train_on_your_photos": "runs/mine/report.html",
}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def texts(outputs):
    """All that outputs say in words, streams and results alike."""
    for output in outputs:
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


@pytest.mark.slow
@every_notebook
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # !convmixer
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        # Four epochs instead of all: what is tested is that every cell runs.
        cell.source = cell.source.replace('Recipe.load("digits")', 'Recipe.load("digits", ["training.epochs=4"])')
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    said = "\n".join(texts(output for cell in notebook.cells for output in cell.get("outputs", [])))
    assert "convmixer: " not in said  # how a command begins what is wrong
    assert (tmp_path / MADE[path.stem]).exists()


def test_every_notebook_is_known():
    assert [path.stem for path in NOTEBOOKS] == sorted(MADE)


@every_notebook
def test_opens_in_colab_as_itself(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(rf"\[!\[Open In Colab\]\(\S+\)\]\(\S+/notebooks/{path.name}\)\n\n# ", first.source)


@every_notebook
def test_begins_with_the_same_installation(path):
    first, quickstart = code(path)[0].source, code(path.with_name("quickstart.ipynb"))[0].source
    assert first == quickstart
    assert "%pip install" in first


@every_notebook
def test_outputs_are_those_of_one_run(path):
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells[1:] if re.search(r"(?m)^(!|print\()", cell.source))
    assert sum(bool(cell.outputs) for cell in cells) >= 5


@every_notebook
def test_outputs_show_no_error_no_warning_and_no_folder_of_a_machine(path):
    outputs = [output for cell in code(path) for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    said = "\n".join(texts(outputs))
    assert PLACE.findall(said) == []
    assert re.findall(r"Warning\b|WARNING|Traceback|^[EWI]\d{4} ", said, re.MULTILINE) == []


@every_notebook
def test_is_listed(path):
    root = path.parents[1]
    assert f"notebooks/{path.name}" in (root / "docs" / "notebooks.md").read_text(encoding="utf-8")
