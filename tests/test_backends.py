"""What is promised on every Keras backend, tested under the others as it is under TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
QUICK = ("test_model.py", "test_parts.py", "weights/test_parity.py")
ALL = (*QUICK, "test_variants.py", "weights", "test_bundles.py", "test_preprocessing.py", "deployment/test_fold.py")
ALL += ("visualize/test_maps.py", "visualize/test_receptive_field.py")


@pytest.mark.parametrize(
    ("backend", "chosen"),
    [("jax", QUICK), *(pytest.param(name, ALL, marks=pytest.mark.slow) for name in ("jax", "torch"))],
    ids=["jax", "jax, all of it", "torch, all of it"],
)
def test_under_another_backend(backend, chosen):
    pytest.importorskip(backend)
    words = ["-p", "no:cacheprovider", "--tb=short", *(str(TESTS / name) for name in chosen)]
    environment = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=TESTS.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
