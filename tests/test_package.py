"""What is installed, and what importing it costs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import keras_convmixer

ROOT = Path(__file__).parent.parent


def python(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)


def test_importing_and_help_load_nothing_heavy():
    heavy = "{'keras', 'tensorflow', 'numpy', 'keras_cv'} & set(sys.modules)"
    python(f"import sys, keras_convmixer; assert not {heavy}")
    code = "import sys\nfrom keras_convmixer.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    assert "convmixer train" in python(f"{code}assert not {heavy}").stdout


def test_public_names_are_there():
    for name in keras_convmixer.__all__:
        assert callable(getattr(keras_convmixer, name))
        assert name in dir(keras_convmixer)
    with pytest.raises(AttributeError, match="no attribute 'Convmixer'"):
        _ = keras_convmixer.Convmixer


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]


def test_the_repository_has_one_address():
    homepage = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        for address in re.findall(
            r"github\.com/[\w.-]+/keras_convmixer|github/[\w.-]+/keras_convmixer", path.read_text()
        ):
            assert homepage.endswith(address.split("/", 1)[1]), f"{path} names another repository: {address}"


def test_the_command_runs_from_a_wheel_outside_the_checkout(tmp_path):
    source = tmp_path / "source"
    for name in ("keras_convmixer", "saved_models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "dist", source]
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", built], check=True)

    code = (
        "import sys, keras_convmixer\n"
        "from keras_convmixer.cli import main\n"
        "from keras_convmixer.recipes import list_recipes\n"
        "from keras_convmixer.class_names import imagenet\n"
        "from keras_convmixer.shipped import folder, names\n"
        "assert 'digits' in names() and all((folder(name) / 'model.keras').is_file() for name in names())\n"
        "from keras_convmixer.pages.html import page\n"
        "assert '--ink' in page('a')\n"
        "print(keras_convmixer.__file__, list_recipes(), len(imagenet()))\n"
        "sys.exit(main(['models']))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    first, *table = done.stdout.splitlines()
    assert first.startswith(str(tmp_path / "site"))
    assert first.endswith("['cifar10', 'digits', 'finetune', 'imagenet'] 1000")
    assert any(line.startswith("convmixer_1536_20 ") for line in table)
    assert (tmp_path / "site" / "bin" / "convmixer").exists()
    page = {path.relative_to(ROOT) for path in (ROOT / "keras_convmixer" / "web" / "page").rglob("*")}
    assert all((tmp_path / "site" / path).exists() for path in page)
