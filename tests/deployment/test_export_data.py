"""Which images an export is compared and calibrated with."""

import json

import pytest
import tensorflow as tf

from keras_convmixer.bundles import Bundle
from keras_convmixer.deployment.export import export


def test_photographs_without_classes_do_for_comparison_and_calibration(bundle, digits, tmp_path):
    images, folder = digits.held_out(), tmp_path / "data"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.png").write_bytes(images.encoded(tf.constant(i, tf.int64)).numpy())
    report = export(bundle, tmp_path / "out", format="tflite", quantize="int8", data=folder, threads=1)
    assert report.comparison.images == 20
    assert report.comparison.agreement >= 0.95


def test_comparison_can_be_left_out(bundle, tmp_path):
    alone = Bundle(bundle.model, bundle.preprocessing, bundle.classes)  # it names no data, and none is needed
    report = export(alone, tmp_path, format="tflite", compare=False)
    assert report.as_table().splitlines()[2:] == ["comparison       not compared"]
    assert json.loads((tmp_path / "model.tflite.json").read_text())["comparison"] is None
    assert b"It was not compared with the Keras model" in report.path.read_bytes()
    with pytest.raises(ValueError, match="give --data"):
        export(alone, tmp_path, format="tflite", quantize="int8", compare=False)


def test_data_of_which_nothing_is_held_out(bundle, digits, tmp_path):
    images = digits.held_out()
    for i in range(3):
        (tmp_path / "data" / str(i)).mkdir(parents=True)
        (tmp_path / "data" / str(i) / "0.png").write_bytes(images.encoded(tf.constant(i, tf.int64)).numpy())
    report = export(bundle, tmp_path / "out", format="tflite", data=tmp_path / "data")
    assert report.comparison.images == 3
