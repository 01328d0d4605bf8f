"""The TFLite form of a ConvMixer, in float32, float16, dynamic-range int8 and full int8."""

from ai_edge_litert import schema_py_generated as schema

from keras_convmixer.deployment import converter, fold, lite_int8
from keras_convmixer.deployment.lite_graph import lite_graph

# name → file name. "float16" halves the weights and computes in float32 where the hardware has nothing less;
# "dynamic" keeps int8 weights and computes activations' ranges as it goes; "int8" is integers up to the average.
FILE_NAMES = {
    "none": "model.tflite",
    "float16": "model_float16.tflite",
    "dynamic": "model_dynamic.tflite",
    "int8": "model_int8.tflite",
}


def convert(model, input_size, quantize="none", representative=None, *, input_type="uint8", **graph):
    """Converts a ConvMixer to a TFLite file's content. For its signature see `converter.convert`.

    Its first output is `probabilities`, and unless more are asked for the only one.

    Args:
        model: a float32 `ConvMixer` that ends in logits.
        input_size: (height, width).
        quantize: one of `FILE_NAMES`.
        representative: for int8: an iterable of float32 images `(1, height, width, 3)` as in evaluation.
        input_type: of int8's images, "uint8" or "float32"; in other forms they are float32.
        graph: split, logits, features: see `lite_graph`.

    Returns:
        bytes.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or it cannot be converted.
    """
    numbers = fold.folded(model)
    if quantize == "int8":
        return _in_order(lite_int8.convert(numbers, input_size, representative, input_type=input_type, **graph))
    # XNNPACK has no depthwise convolution of int8 weights and float32 activations. Where it does not take over the
    # float32 one either, since that is not split, int8 depthwise weights are the better ones.
    only_matrices = quantize == "dynamic" and graph.get("split", True)
    content = converter.convert(lite_graph(numbers, **graph), input_size, "none" if only_matrices else quantize)
    return _in_order(lite_int8.only_matrices(content) if only_matrices else content)


def _in_order(content):
    """The file with `probabilities` first, which the converter sorts by name: what takes one output takes that."""
    content = bytearray(content)
    model = schema.Model.GetRootAs(content, 0)
    outputs, signature = model.Subgraphs(0).OutputsAsNumpy(), model.SignatureDefs(0)
    named = [signature.Outputs(i) for i in range(signature.OutputsLength())]
    named.sort(key=lambda output: (output.Name() != b"probabilities", output.Name()))
    outputs[:] = [output.TensorIndex() for output in named]  # in place: it is a view of the content
    return bytes(content)
