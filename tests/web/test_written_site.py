"""The page that an export writes: its files, and what they say of the model."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_convmixer.cli import main
from keras_convmixer.deployment.demo import make_site
from keras_convmixer.deployment.export import export
from keras_convmixer.errors import UserError
from keras_convmixer.web import server, site, written

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "keras_convmixer" / "web" / "page"
PAGE = {"index.html", "page.js", "page.css", "worker.js", "icon.svg"}
WASM = {
    f"wasm/litert_wasm_{build}_internal.{suffix}" for build in ("compat", "threaded") for suffix in ("js", "wasm")
} | {"wasm/LICENSE.txt", "wasm/NOTICE.txt"}
MODEL = {"labels.txt", "input.json", "page.json", "class_weights.bin"}


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    """The page of the digits in float32 and int8."""
    out = tmp_path_factory.mktemp("site") / "page"
    for quantize in ("none", "int8"):
        export(bundle, out, format="web", quantize=quantize, images=20)
    return out


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_all_that_the_page_needs_and_nothing_else(folder):
    forms = {f"{name}{suffix}" for name in ("model", "model_int8") for suffix in (".tflite", ".tflite.json")}
    assert names(folder) == PAGE | WASM | MODEL | forms


def test_the_page_is_told_of_every_form(folder):
    about = json.loads((folder / "page.json").read_text())
    files = [(form["file"], form["numbers"]) for form in about["forms"]]
    assert files == [("model.tflite", "float32"), ("model_int8.tflite", "int8")]
    assert all(form["bytes"] == (folder / form["file"]).stat().st_size for form in about["forms"])
    card = dict(about["card"])
    assert card["Architecture"] == "ConvMixer-32/2, kernels of 3, patches of 2"
    assert card["Classes"] == "10"
    assert "on 100.00% of 20 images" in card["float32"]
    assert json.loads((folder / "input.json").read_text())["width"] == 8


def test_a_class_activation_map_can_be_made_of_what_is_there(folder, bundle, held_out):
    """The mean of a class's map is its logit, but for the head's bias."""
    from keras_convmixer.exported.runtimes import open_tflite

    features = open_tflite(folder / "model.tflite", 1)(held_out[:1])["features"][0]
    weights = np.fromfile(folder / "class_weights.bin", "<f4").reshape(10, -1)
    logits = keras.ops.convert_to_numpy(bundle.model(held_out[:1]))[0]
    bias = bundle.model.get_layer("head").get_weights()[1]
    np.testing.assert_allclose((features @ weights.T).mean((0, 1)) + bias, logits, atol=1e-4)


def test_what_the_page_may_do_is_what_the_server_says(folder):
    text = (folder / "index.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert f"{policy}; frame-ancestors 'none'" == server.POLICY
    for name in PAGE:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", (folder / name).read_text()), name


def test_without_a_model_there_is_no_page(bundle, tmp_path):
    with pytest.raises(UserError, match=r"has no \.tflite file: convmixer export MODEL --format web"):
        site.write(tmp_path, bundle, "digits")


def test_another_page_is_not_replaced(bundle, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match=r"has index\.html of another page: give a folder of its own"):
        export(bundle, tmp_path, format="web", compare=False)
    assert names(tmp_path) == {"index.html"}
    assert (tmp_path / "index.html").read_text() == "mine"


def test_all_of_a_page_is_served(folder):
    assert written.names(folder) == {name for name in names(folder) if not name.endswith(".tflite.json")}


def test_the_files_that_are_shipped_are_those_of_the_source(tmp_path):
    if not shutil.which("node") or not (ROOT / "web" / "node_modules").is_dir():
        pytest.skip("needs Node, and web/node_modules: make web")
    subprocess.run(["node", ROOT / "web" / "build.js", tmp_path / "page"], check=True)
    assert names(tmp_path / "page") == names(SHIPPED)
    for name in names(SHIPPED):
        assert (tmp_path / "page" / name).read_bytes() == (SHIPPED / name).read_bytes(), f"{name}: make web"


@pytest.mark.slow
def test_the_source_has_no_type_errors():
    if not (ROOT / "web" / "node_modules").is_dir():
        pytest.skip("needs web/node_modules: make web")
    done = subprocess.run(["npm", "run", "check"], cwd=ROOT / "web", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_lock_file_names_no_server():
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    assert all(
        "resolved" not in package and "integrity" in package for name, package in lock["packages"].items() if name
    )


def test_the_command_says_where_the_page_is(folder, tmp_path, capsys, bundle):
    words = ["export", str(bundle.path), "--format", "web", "--no-compare", "--out", str(tmp_path / "page")]
    assert main(words) == 0
    assert f"convmixer demo {tmp_path / 'page'}" in capsys.readouterr().out
    assert names(tmp_path / "page") == PAGE | WASM | MODEL | {"model.tflite", "model.tflite.json"}


def without(folder, name, to):
    """A copy of the page that lacks a file."""
    to.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name != name:
            os.link(path, to / path.name)
    return to


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_demo_needs_no_export_before(int8, bundle, tmp_path):
    make_site(bundle.path, tmp_path, int8=int8)
    expected = ("model", "model_int8") if int8 else ("model",)
    forms = {f"{name}{suffix}" for name in expected for suffix in (".tflite", ".tflite.json")}
    assert names(tmp_path) == PAGE | WASM | MODEL | forms
    about = json.loads((tmp_path / "page.json").read_text())
    assert (about["name"], len(about["forms"])) == (bundle.path.name, len(expected))


def test_a_file_that_was_exported_before_is_enough(tmp_path):
    """What it takes stands in the file itself; a class activation map it cannot give."""
    shutil.copy(ROOT / "saved_models" / "digits" / "model_int8.tflite", tmp_path)
    (tmp_path / "page").mkdir()
    make_site(tmp_path / "model_int8.tflite", tmp_path / "page")
    assert names(tmp_path / "page") == PAGE | WASM | (MODEL - {"class_weights.bin"}) | {"model_int8.tflite"}
    about = json.loads((tmp_path / "page" / "page.json").read_text())
    assert about["class_weights"] is None
    assert (tmp_path / "page" / "labels.txt").read_text().split() == list("0123456789")


def test_a_demo_of_a_folder_with_two_models_is_refused(folder, bundle, tmp_path):
    """A page has one list of classes."""
    (tmp_path / "page").mkdir()
    (tmp_path / "both").mkdir()
    shutil.copy(folder / "model.tflite", tmp_path / "both" / "first.tflite")
    others = dataclasses.replace(bundle, classes=tuple("abcdefghij"))
    second = export(others, tmp_path / "out", format="tflite", compare=False).path
    shutil.copy(second, tmp_path / "both" / "second.tflite")
    with pytest.raises(
        UserError, match=r"both holds the exports of several models: give one \.tflite file of them"
    ):
        make_site(tmp_path / "both", tmp_path / "page")


def test_a_demo_of_what_cannot_be_shown_is_one_line(folder, bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    without(folder, "model_int8.tflite", tmp_path / "gone")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.tflite").write_bytes(b"no model")
    keras.Model(bundle.model.input, bundle.model.output).save(tmp_path / "mine.keras")
    cases = {
        ("nowhere",): "nowhere: no such model folder",
        ("empty",): "empty has neither model.keras nor a .tflite file",
        ("gone",): "gone has no model_int8.tflite, which its page names",
        ("bad",): "bad/model.tflite has no labels.txt",
        ("mine.keras",): "--classes and a file",
        (str(folder), "--int8"): "is exported already",
    }
    for words, expected in cases.items():
        assert main(["demo", *words]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert expected in err
        assert err.count("\n") == 1
