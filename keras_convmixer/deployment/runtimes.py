"""Exported files in the runtimes that they are for. Each is imported when it is first used."""


def open_tflite(path, threads):
    """A TFLite file as a function from an image `(1, height, width, 3)` in 0–255 to a dictionary of arrays."""
    from ai_edge_litert.interpreter import Interpreter

    # From its content, since Windows does not rename a file that is open.
    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    dtype = runner.get_input_details()["images"]["dtype"]
    # Of the evaluation's images, which are whole numbers, uint8 loses nothing.
    return lambda image: runner(images=image.astype(dtype))


def open_onnx(path, threads):
    """An ONNX file as a function from float32 images in 0–255 to a dictionary of arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # From its content, as a TFLite file.
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"image": images})))


def open_openvino(path, threads, precision="f32"):
    """A folder with OpenVINO's model as a function from float32 images in 0–255 to a dictionary of arrays.

    Args:
        path: the folder. precision: to compute in, "f32" or "bf16". Left alone, OpenVINO takes the latter where the
            processor has it.
    """
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(path / "model.xml", "CPU", settings)
    return lambda images: {o.get_any_name(): values for o, values in compiled(images).items()}


# format → what opens a file of it
OPENERS = {"tflite": open_tflite, "onnx": open_onnx, "openvino": open_openvino}
