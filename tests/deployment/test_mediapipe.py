"""MediaPipe's ImageClassifier task takes the files as they are."""

import runpy
from pathlib import Path

import pytest
import tensorflow as tf

from keras_convmixer.deployment.export import export

EXAMPLE = Path(__file__).parents[2] / "examples" / "mediapipe_check.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quantize": "float16"},
        {"quantize": "dynamic"},
        {"quantize": "int8"},
        {"quantize": "int8", "input_type": "float32"},
    ],
)
def test_gives_the_names_and_scores_that_predict_gives(options, bundle, digits, tmp_path):
    pytest.importorskip("mediapipe")
    images = digits.held_out().spread(200)
    photos = [tmp_path / f"{i}.png" for i in range(200)]
    for i, path in enumerate(photos):
        path.write_bytes(images.encoded(tf.constant(i, tf.int64)).numpy())
    file = export(bundle, tmp_path / "out", format="tflite", images=20, **options).path
    results = runpy.run_path(str(EXAMPLE))["check"](bundle.path, [file], photos)[file]
    same, difference = results["predict FILE"]
    assert same == 200
    assert difference < 1e-3
    same, difference = results["predict MODEL"]
    assert same >= (190 if options else 200)
    assert difference < (0.25 if options else 1e-3)
