"""The TFLite form of a ConvMixer, in float32, float16, dynamic-range int8 and full int8."""

from keras_convmixer.deployment import converter, fold, int8
from keras_convmixer.deployment.lite_graph import lite_graph

# name → file name. "float16" halves the weights and computes in float32 where the hardware has nothing less;
# "dynamic" keeps int8 weights and computes activations' ranges as it goes; "int8" is integers up to the average.
FILE_NAMES = {
    "none": "model.tflite",
    "float16": "model_float16.tflite",
    "dynamic": "model_dynamic.tflite",
    "int8": "model_int8.tflite",
}


def convert(model, input_size, quantize="none", representative=None, *, split=True, features=False):
    """Converts a ConvMixer to a TFLite file's content. For its signature see `converter.convert`.

    Args:
        model: a float32 `ConvMixer` that ends in logits.
        input_size: (height, width).
        quantize: one of `FILE_NAMES`.
        representative: for int8: an iterable of float32 images `(1, height, width, 3)` as in evaluation.
        split, features: see `lite_graph`.

    Returns:
        bytes.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or it cannot be converted.
    """
    numbers = fold.folded(model)
    if quantize == "int8":
        return int8.convert(numbers, input_size, representative, split=split, features=features)
    # XNNPACK has no depthwise convolution of int8 weights and float32 activations. Where it does not take over the
    # float32 one either, since that is not split, int8 depthwise weights are the better ones.
    only_matrices = quantize == "dynamic" and split
    graph = lite_graph(numbers, split=split, features=features)
    content = converter.convert(graph, input_size, "none" if only_matrices else quantize)
    return int8.only_matrices(content) if only_matrices else content
