"""Build shim: the metadata lives in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithTrainedModels(build_py):
    """Puts `saved_models/` into the package, where `keras_convmixer.shipped` looks, without the exported files."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "keras_convmixer" / "saved_models"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("saved_models", target, ignore=shutil.ignore_patterns("*.tflite", "*.png", "*.py"))


setup(cmdclass={"build_py": WithTrainedModels})
