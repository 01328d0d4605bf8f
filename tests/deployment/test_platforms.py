"""The Python of docs/platforms.md, run as it stands where neither this package nor TensorFlow is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from keras_convmixer.deployment.export import export
from keras_convmixer.inference.prediction import predict

DOCS = Path(__file__).parents[2] / "docs" / "platforms.md"
ABSENT = "import sys\nsys.modules.update(dict.fromkeys(('keras_convmixer', 'keras', 'tensorflow')))\n"


def test_the_python_says_what_predict_says(bundle, held_out, tmp_path):
    (script,) = re.findall(r"```python\n(.+?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    photo = Image.new("RGB", (60, 40))
    photo.paste(Image.fromarray(held_out[0].astype("uint8")).resize((40, 40), Image.Resampling.BICUBIC), (10, 0))
    photo.save(tmp_path / "photo.jpg", "png")  # JPEG would change it
    report = export(bundle, tmp_path / "out", format="tflite", compare=False)
    (tmp_path / "exported").mkdir()
    shutil.copy(report.path, tmp_path / "exported" / "model_int8.tflite")
    command = [sys.executable, "-c", ABSENT + script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = [(name, float(score)) for score, name in map(str.split, done.stdout.splitlines())]
    expected = predict(report.path, tmp_path / "photo.jpg")[0].classes
    assert len(said) == 5
    assert said[0][0] == expected[0][0]
    # Pillow and TensorFlow resize alike, but not to the last bit.
    assert said[0][1] == pytest.approx(expected[0][1], abs=0.01)
