"""`convmixer recipe show` and `keys`."""

import json
import subprocess
import sys

import pytest

from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.recipes.reference import reference


def test_show_prints_what_load_reads(tmp_path, capsys):
    assert main(["recipe", "show", "cifar10", "--set", "training.epochs=5"]) == 0
    written = tmp_path / "recipe.yaml"
    written.write_text(capsys.readouterr().out)
    recipe = Recipe.load("cifar10", ["training.epochs=5"])
    assert Recipe.load(written) == recipe
    assert main(["recipe", "show", str(tmp_path), "--json"]) == 0
    assert Recipe.from_dict(json.loads(capsys.readouterr().out)) == recipe


def test_keys_in_every_form(capsys):
    assert main(["recipe", "keys", "training"]) == 0
    assert capsys.readouterr().out.startswith("training.epochs: integer >= 1 (default: 25)\n    How often")
    assert main(["recipe", "keys", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(reference().keys)
    assert main(["recipe", "keys", "--markdown"]) == 0
    assert capsys.readouterr().out == reference().as_markdown()


@pytest.mark.parametrize(
    "words, expected",
    [
        (["show", "cifr10"], "finetune, imagenet; did you mean 'cifar10'?"),
        (["show", "zzz"], "zzz: no such recipe; give a YAML file, a run's folder or one of cifar10, digits"),
        (["show", "digits", "--set", "training.epoch=5"], "did you mean 'training.epochs'"),
        (["keys", "optimiser"], "optimiser: no section or key of a recipe; did you mean 'optimizer'?"),
    ],
)
def test_mistakes_get_one_line(words, expected, capsys):
    assert main(["recipe", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("convmixer: ")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["recipe"], ["recipe", "shw"], ["recipe", "keys", "--json", "--markdown"]])
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: convmixer recipe" in capsys.readouterr().err


def test_tensorflow_is_not_loaded():
    code = "import sys\nfrom keras_convmixer.cli import main\n"
    code += "main(['recipe', 'show', 'digits'])\nmain(['recipe', 'keys'])\n"
    code += "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
