"""Where tests find reference values and, if they are on this machine, real images."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["own_font", "trained_digits"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

# How long an example takes says more of the machine than of the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

TESTS = Path(__file__).parent


# Files of few tests that take minutes: begun first, so that no worker is left with one of them at the end.
LONG = (
    "test_interrupted_training.py",
    "test_backends.py",
    "test_distribute.py",
    "test_notebooks.py",
    "test_train.py",
    "test_benchmark.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def oracles():
    """Reference values made by running the reference implementations; see tests/oracles/README.md."""
    return TESTS / "oracles"


def _real_data(name):
    folder = Path(os.environ.get("CONVMIXER_TEST_DATA") or TESTS.parent.parent / "shared" / "data")
    if not (folder / name).exists():
        pytest.skip(f"needs {name}: not in {folder.name}/; set CONVMIXER_TEST_DATA to the folder that holds it")
    return folder / name


@pytest.fixture(scope="session")
def cifar10_archive():
    """CIFAR-10 as JPEG files, train/CLASS/NNNN.jpg and test/CLASS/NNNN.jpg, in a .tar.gz."""
    return _real_data("cifar10_jpeg.tar.gz")


@pytest.fixture(scope="session")
def imagenet_samples():
    """A .tar of 250 ImageNet photographs, images/WNID_name.JPEG."""
    return _real_data("imagenet_samples.tar")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps tests out of the user's cache."""
    monkeypatch.setenv("KERAS_CONVMIXER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
