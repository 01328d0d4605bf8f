"""Several runs on one page, and runs that do not belong on one."""

import json

import numpy as np
import pytest
from page_of import Page

from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.data import fingerprints


def write_run(folder, *overrides, images=range(1, 101), top1=0.5, epochs=2, classes="ab", **figures):
    """A run's folder with what a comparison reads of it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(Recipe.load("digits", overrides).to_yaml())
    rows = [f"{i},2.0,0.{i},1.{i},0.01,30,100" for i in range(1, epochs + 1)]
    (folder / "history.csv").write_text(
        "epoch,loss,val_accuracy,val_loss,learning_rate,seconds,images_per_second\n"
    )
    with (folder / "history.csv").open("a") as file:
        file.write("\n".join(rows))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    (folder / "metrics.json").write_text(json.dumps({"top1": top1, "loss": 0.25, "parameters": 1234} | figures))
    if images is not None:
        fingerprints.write(folder, np.array(images, np.uint64))
    return str(folder)


def compared(tmp_path, *runs):
    assert main(["report", *runs, "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.check_is_one_file()
    page.check_is_accessible()
    return page


def refused(tmp_path, capsys, *runs):
    assert main(["report", *runs, "--out", str(tmp_path / "page.html")]) == 1
    assert not (tmp_path / "page.html").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_runs_stand_beside_each_other_by_what_they_differ_in(tmp_path):
    one = write_run(tmp_path / "runs" / "<i>a", top1=0.9375)
    two = write_run(tmp_path / "runs" / "b", "model.kernel_size=7", top1=0.8125)
    page = compared(tmp_path, one, two)
    assert page.table("The recipes' keys") == [["run", "model.kernel_size"], ["<i>a", "5"], ["b", "7"]]
    rows = page.table("Each run")
    assert [row[:5] for row in rows[1:]] == [
        ["<i>a", "0", "93.75%", "0.2500", "2 of 24"],
        ["b", "0", "81.25%", "0.2500", "2 of 24"],
    ]
    assert not [caption for caption in page.tables if "seed alone" in caption]
    assert "another images" not in page.text


def test_many_keys_are_rows(tmp_path):
    one = write_run(tmp_path / "a")
    two = write_run(
        tmp_path / "b", "model.kernel_size=7", "model.dim=8", "training.epochs=2", "optimizer.name=muon"
    )
    page = compared(tmp_path, one, two)
    assert page.table("The recipes' keys")[0] == ["run", "a", "b"]
    assert ["model.dim", "64", "8"] in page.table("The recipes' keys")


def test_seeds_are_one_line_of_a_table_and_held_out_images_that_differ_are_told(tmp_path):
    runs = [write_run(tmp_path / "runs" / f"s{i}", f"seed={i}", images=range(1 + i, 90 + i)) for i in range(3)]
    page = compared(tmp_path, str(tmp_path / "runs"), *runs)
    assert len(page.table("Each run")) == 4
    assert page.table("Runs that differ in their seed alone")[1][:3] == ["s0", "3", "50.00 ± 0.00 %"]
    assert "Another seed holds out other images here" in page.text
    assert "Nothing but their seeds." in page.text


def test_a_run_that_a_sweep_saw_fail_is_in_the_table(tmp_path):
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "recipe.yaml").write_text(Recipe.load("digits", ["model.dim=8"]).to_yaml())
    (tmp_path / "runs" / "b" / "failed.txt").write_text("out of <memory>\n")
    page = compared(tmp_path, str(tmp_path / "runs"))
    assert page.table("Each run")[2][-1] == "failed: out of <memory>"


@pytest.mark.parametrize(
    "other, message",
    [
        ({"images": range(1001, 1101)}, "they learned from other images"),
        ({"classes": "abc"}, "their classes are not the same"),
        ({"split": "test"}, "they were measured on other splits, validation and test"),
        ({"data": {"source": "digits", "images": {"train": 90}}}, "their data has 100 and 90 images"),
        (
            {"images": None, "data": {"source": None, "images": {}}},
            "their data is digits and batches of the user's",
        ),
    ],
)
def test_runs_over_other_data_are_refused(tmp_path, capsys, other, message):
    same = {"split": "validation", "data": {"source": "digits", "images": {"train": 80, "validation": 20}}}
    one = write_run(tmp_path / "a", **same)
    recipe = [] if (same | other)["data"]["source"] else ["data.source=null"]
    two = write_run(tmp_path / "b", *recipe, **(same | other))
    assert f"{one} and {two} cannot be compared: {message}" in refused(tmp_path, capsys, one, two)


def test_the_same_images_in_another_place_are_the_same_data(tmp_path):
    page = compared(tmp_path, write_run(tmp_path / "a"), write_run(tmp_path / "b", "data.source=elsewhere"))
    assert len(page.table("Each run")) == 3


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", epochs=0)
    assert "b has no epoch in its history.csv" in refused(tmp_path, capsys, one, two)
    assert "--data is for the report of one run, and there are 2" in refused(
        tmp_path, capsys, one, two, "--data", "digits"
    )
    (tmp_path / "empty").mkdir()
    assert "empty: no run there" in refused(tmp_path, capsys, one, str(tmp_path / "empty"))
