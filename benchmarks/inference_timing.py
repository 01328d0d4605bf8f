"""How many images/s trained models infer, in Keras and as TFLite files, all in turns in one process."""

import json
import os
import statistics
import sys
import time

import numpy as np

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.errors import UserError, one_line

# At a time in Keras; in TFLite one after another.
IMAGES = 32
_WARM_UP = 2


def time_all(folders, convmixers, path, threads, rounds):
    """Times models and writes name → form → images/s, or why there are none, as JSON. For a process of its own.

    Args:
        folders: name → the folder that its model.keras is in. convmixers: which of the names are ConvMixers, that
            `convmixer export` takes too. path: the JSON file to write.
        threads: for TensorFlow and for TFLite. rounds: in which every form has its turn.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_tensorflow():
            import tensorflow as tf
        tf.get_logger().setLevel("ERROR")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        with quiet_native_code():
            forms = {
                (name, form): run
                for name, folder in folders.items()
                for form, run in _forms(folder, name in convmixers, threads).items()
            }
            seconds = _seconds({key: run for key, run in forms.items() if not isinstance(run, str)}, rounds)
    except KeyboardInterrupt:
        sys.exit(130)
    found = {name: {} for name in folders}
    for (name, form), run in forms.items():
        found[name][form] = run if isinstance(run, str) else IMAGES / statistics.median(seconds[name, form])
    files.write_text(path, json.dumps(found, indent=2) + "\n")


def _seconds(runs, rounds):
    """Key → seconds of its run in each round."""
    seconds = {key: [] for key in runs}
    for turn in range(rounds + _WARM_UP):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= _WARM_UP:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def _forms(folder, is_convmixer, threads):
    """Form → a function that infers the images, or why there is none."""
    import keras
    import peer_models  # noqa: F401  # whose layers Keras then knows
    import tensorflow as tf

    from keras_convmixer.deployment import converter, tflite
    from keras_convmixer.exported.runtimes import open_tflite

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    size = model.input_shape[1:3]
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *size, 3)).astype("float32")
    in_graph = tf.function(lambda images: model(images, training=False), autograph=False)

    def lite(convert):
        path = folder / "timed.tflite"
        try:
            path.write_bytes(convert())
            run = open_tflite(path, threads)
        except UserError as error:
            return one_line(error)
        finally:
            path.unlink(missing_ok=True)
        return lambda: run(images)

    named = keras.Model(model.input, {"logits": model.output})
    forms = {
        "keras": lambda: in_graph(tf.constant(images)).numpy(),
        "stock_tflite": lite(lambda: converter.convert(named, size)),
    }
    if is_convmixer:
        forms["tflite"] = lite(lambda: tflite.convert(model, size, logits=True))
    return forms
