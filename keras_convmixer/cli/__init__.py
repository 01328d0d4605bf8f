"""The command line."""

from keras_convmixer.cli.main import main

__all__ = ["main"]
