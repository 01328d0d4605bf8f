"""Exported files in the runtimes that they are for. Each is imported when it is first used.

An opener gives a function from float32 images `(batch, height, width, 3)` in 0–255 to a dictionary of arrays.
"""

import numpy as np


def open_saved_model(path, threads=None, signature="serving_default"):
    """A SavedModel; its signature `serve_bytes` takes a list of image files' contents instead.

    TensorFlow has the same threads for all: `threads` is not looked at.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    serve = loaded.signatures[signature]
    (name,) = serve.structured_input_signature[1]

    def run(images, _kept=loaded):  # whose variables go with it
        return {key: value.numpy() for key, value in serve(**{name: tf.constant(images)}).items()}

    return run


def open_tflite(path, threads):
    """A TFLite file, which takes one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    # From its content, since Windows does not rename a file that is open.
    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    taken = runner.get_input_details()["images"]
    dtype, shape = taken["dtype"], tuple(taken["shape"].tolist()[1:])

    def run(images):
        if images.shape[1:] != shape:  # the interpreter would try to make another model of it
            raise ValueError(f"it takes images of {shape}, not of {images.shape[1:]}")
        # Of the evaluation's images, which are whole numbers, uint8 loses nothing.
        answers = [runner(images=image[None]) for image in images.astype(dtype)]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    return run


def open_onnx(path, threads):
    """An ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # From its content, as a TFLite file.
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"image": images})))


def open_openvino(path, threads, precision="f32"):
    """A folder with OpenVINO's model.

    Args:
        path: the folder. precision: to compute in, "f32" or "bf16". Left alone, OpenVINO takes the latter where the
            processor has it.
    """
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(path / "model.xml", "CPU", settings)
    return lambda images: {o.get_any_name(): values for o, values in compiled(images).items()}


# format → what opens a file of it
OPENERS = {"saved_model": open_saved_model, "tflite": open_tflite, "onnx": open_onnx, "openvino": open_openvino}
