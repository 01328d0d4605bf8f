"""TensorFlow's TFLite converter, for any function."""

import re
import tempfile
import warnings

import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from keras_convmixer.errors import UserError, first_line


class NotBuiltIn(UserError):
    """A model needs TensorFlow's own ("Flex") or custom operations, which TFLite's plain runtime does not have."""

    def __init__(self, names):
        super().__init__(f"the model needs operations that TFLite does not have built in: {', '.join(names)}")


def convert(function, input_size, quantize="none", representative=None):
    """Converts a function to a TFLite file's content, with TFLite's built-in operations only.

    The file has one signature, from `images` to what the function gives. Images are `(1, height, width, 3)`, RGB in
    0–255, float32, but for int8 uint8; outputs are float32 in every form. The batch is fixed at one, since XNNPACK
    takes over no operation whose shape is not fixed.

    Args:
        function: of a float32 tensor of images, to a dictionary; a `keras.Model` or what `lite_graph` gives.
        input_size: (height, width).
        quantize: "none", "float16", "dynamic" or "int8", see `tflite`.
        representative: for int8: an iterable of float32 images `(1, height, width, 3)` as in evaluation, by which
            the ranges of the activations are set.

    Returns:
        bytes.

    Raises:
        NotBuiltIn, a ValueError: the model needs operations that are not built in.
        ValueError: it cannot be converted for another reason.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in getattr(function, "variables", ())]
    images = tf.TensorSpec((1, *input_size, 3), tf.float32, name="images")
    traced = tf.function(lambda images: function(images), input_signature=[images], autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=traced.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: ({"images": image} for image in representative)
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.float32
        try:
            with warnings.catch_warnings():
                # Of the interpreter that TensorFlow itself sets the ranges with.
                warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
                content = converter.convert()
        except Exception as error:  # The converter's own error class is not public.
            names = re.findall(r"^(?:Custom|TF Select) ops: (.+)$", str(error), re.MULTILINE)
            if names:
                raise NotBuiltIn(names) from error
            raise UserError(f"TFLite conversion failed: {first_line(error)}") from error
    check_operators(content)
    return content


def check_operators(content):
    """Raises `NotBuiltIn` if a TFLite file's content has other operators than the built-in ones."""
    model = schema.Model.GetRootAsModel(content, 0)
    codes = (model.OperatorCodes(i).CustomCode() for i in range(model.OperatorCodesLength()))
    names = sorted(code.decode() for code in codes if code)
    if names:
        raise NotBuiltIn(names)
