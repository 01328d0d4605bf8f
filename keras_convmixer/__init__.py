"""ConvMixer ("Patches Are All You Need?", arXiv 2201.09792) for Keras."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from keras_convmixer.bundles import Bundle
    from keras_convmixer.deployment.export import export
    from keras_convmixer.deployment.fold import fold
    from keras_convmixer.experiments.runs import compare
    from keras_convmixer.experiments.sweep import sweep
    from keras_convmixer.exported.loaded import load
    from keras_convmixer.inference.evaluation import evaluate
    from keras_convmixer.inference.prediction import predict
    from keras_convmixer.model import ConvMixer
    from keras_convmixer.parts import features
    from keras_convmixer.preprocessing import Preprocessing
    from keras_convmixer.recipes import Recipe
    from keras_convmixer.training.averaging import average
    from keras_convmixer.training.train import train
    from keras_convmixer.variants import create_model, list_models

__version__ = "0.1.0"

_MODULES = {
    "Bundle": "bundles",
    "ConvMixer": "model",
    "Preprocessing": "preprocessing",
    "Recipe": "recipes",
    "average": "training.averaging",
    "compare": "experiments.runs",
    "create_model": "variants",
    "evaluate": "inference.evaluation",
    "export": "deployment.export",
    "features": "parts",
    "fold": "deployment.fold",
    "list_models": "variants",
    "load": "exported.loaded",
    "predict": "inference.prediction",
    "sweep": "experiments.sweep",
    "train": "training.train",
}

__all__ = [
    "Bundle",
    "ConvMixer",
    "Preprocessing",
    "Recipe",
    "average",
    "compare",
    "create_model",
    "evaluate",
    "export",
    "features",
    "fold",
    "list_models",
    "load",
    "predict",
    "sweep",
    "train",
]

if not TYPE_CHECKING:  # or every misspelt name would be one of these

    def __getattr__(name):
        """Public names are imported when they are first used (PEP 562), so that this import is instant."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
