"""The speed of a training's input: what is refused."""

import sys

import input_throughput
import pytest
from PIL import Image


def test_fewer_images_than_a_batch_are_refused_in_a_line(tmp_path, monkeypatch, capsys):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "1.png")
    monkeypatch.setattr(sys, "argv", ["input_throughput.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        input_throughput.main()
    assert f"{tmp_path} has 2 images, fewer than a batch of {input_throughput.BATCH}" in capsys.readouterr().err
