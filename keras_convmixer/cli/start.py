"""Starting TensorFlow without what it says of itself."""

import contextlib
import os

from keras_convmixer.quiet import quiet_stderr


@contextlib.contextmanager
def quiet_tensorflow():
    """Keeps what TensorFlow says of itself while it starts off stderr, unless the start fails."""
    # What TensorFlow logs as an error and stops for it also raises; the rest is about the machine.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        # The first look for a GPU has its own complaints where there is none.
        tf.config.list_physical_devices("GPU")
        yield
