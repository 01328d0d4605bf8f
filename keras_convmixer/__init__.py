"""ConvMixer ("Patches Are All You Need?", arXiv 2201.09792) for Keras."""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "Bundle": "bundles",
    "ConvMixer": "model",
    "Preprocessing": "preprocessing",
    "Recipe": "training.recipe",
    "create_model": "variants",
    "evaluate": "training.evaluate",
    "export": "deployment.export",
    "fold": "deployment.fold",
    "features": "parts",
    "list_models": "variants",
    "load": "bundles",
    "predict": "inference.prediction",
    "train": "training.train",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    """Public names are imported when they are first used (PEP 562), so that `import keras_convmixer` is instant."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
