"""A run of the command line, and a photograph for it."""

import numpy as np
import pytest
from PIL import Image

from keras_convmixer.cli import main

SMALL = ["model.dim=8", "model.depth=1", "augmentation.crop_scale=null", "training.epochs=1"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of the command: a weak model of the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    overrides = [word for override in SMALL for word in ("--set", override)]
    assert main(["train", "--recipe", "digits", "--workdir", str(folder), *overrides]) == 0
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(path)
    return path
