"""What an editor and a type checker know of the public names."""

import ast
import subprocess
import sys
from pathlib import Path

import keras_convmixer

WRONG = """
import keras_convmixer

keras_convmixer.Convmixr(256, 8)
keras_convmixer.ConvMixer(256, "eight")
keras_convmixer.evaluate("runs/d", spilt="test")
keras_convmixer.evaluate("runs/d").top("one")
keras_convmixer.predict("runs/d", "a.png").as_cvs()
"""


def test_a_misspelt_name_and_wrong_arguments_are_errors(tmp_path):
    script = tmp_path / "wrong.py"
    script.write_text(WRONG)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            "pyproject.toml",
            "--cache-dir",
            tmp_path / "cache",
            script,
        ],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(found) == 5, done.stdout
    assert 'Module has no attribute "Convmixr"' in found[0]
    assert "incompatible type" in found[1]
    assert 'Unexpected keyword argument "spilt"' in found[2]
    assert "incompatible type" in found[3]
    assert 'has no attribute "as_cvs"' in found[4]


def test_what_editors_see_is_what_there_is():
    tree = ast.parse(Path(keras_convmixer.__file__).read_text())
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_convmixer."):
            seen |= {alias.name: node.module.removeprefix("keras_convmixer.") for alias in node.names}
    assert seen == keras_convmixer._MODULES
    assert sorted(seen) == sorted(keras_convmixer.__all__)
