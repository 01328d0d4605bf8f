"""An example's digit, as the shipped model takes it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def digit():
    """The 2 of the examples: float32 (8, 8, 3)."""
    with Image.open(ROOT / "examples" / "digits" / "2.png") as file:
        return np.asarray(file.convert("RGB"), np.float32)
