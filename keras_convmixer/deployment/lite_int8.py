"""A ConvMixer in integers of 8 bits as a TFLite file, rounded as `ranges` says.

The patch embedding computes in float32: it is a hundredth of the work, and its kernels, of few weights and often
close to differences of pixels, lose more to 8 bits than the rest. After the average, the head computes in float32
from int8 weights: logits are not rounded.
"""

import contextlib
import io
import re
import warnings

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer

from keras_convmixer.deployment import converter, ranges
from keras_convmixer.deployment.lite_graph import lite_graph
from keras_convmixer.machine import usable_cores

COUNTED = (schema.BuiltinOperator.ADD, schema.BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOperator.GELU)
PATCHES = "^patches/"


def convert(numbers, input_size, representative, *, input_type="uint8", **graph):
    """A ConvMixer as a TFLite file's content in int8.

    Args:
        numbers: what `fold.folded` gives for a `ConvMixer` that ends in logits.
        input_size: (height, width).
        representative: an iterable of float32 images `(1, height, width, 3)` in 0–255, as in evaluation, which
            decide on scales and ranges.
        input_type: of the images, "uint8" or "float32".
        graph: split, logits, features: see `lite_graph`.

    Returns:
        bytes. Outputs are float32.

    Raises:
        ValueError: it cannot be converted.
    """
    images = [np.asarray(image) for image in representative]

    def in_float(numbers):
        return converter.convert(lite_graph(numbers, integers=True, **graph), input_size)

    seen = _observed(in_float(numbers), images, counted=())
    divisors, ranges_of_x = zip(*ranges.divisors(numbers, _by_block(seen, len(numbers.blocks))))
    content = in_float(ranges.divided(numbers, divisors))
    into_gelu, found = _inputs(content, schema.BuiltinOperator.GELU), {}
    for name, tensor in _observed(content, images, counted=COUNTED).items():
        block = re.match(r"block_(\d+)/x/", name)
        best = ranges.best_range(tensor, before_gelu=name in into_gelu)
        found[name] = ranges_of_x[int(block[1])] if block else best
    return _everything(content, found, input_type)


def _by_block(seen, depth):
    """For each block all its tensors, x first."""
    for i in range(depth):
        own = {name: tensor for name, tensor in seen.items() if name.startswith(f"block_{i}/")}
        (x,) = (name for name in own if name.startswith(f"block_{i}/x/"))
        yield [own.pop(x), *own.values()]


def _observed(content, images, counted):
    """Name → `ranges.Seen`, of a float32 file's tensors of activations. `counted`: by which operators made."""
    graph, operators = _operators(content)
    made = {output: code for code, operator in operators for output in operator.outputs}
    with _silently():
        interpreter = Interpreter(
            model_content=content, num_threads=usable_cores(), experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    weights = _weights(interpreter, operators)
    seen = {tensor: ranges.Seen(code in counted, weights.get(tensor)) for tensor, code in made.items()}
    for image in images:
        interpreter.set_tensor(graph.inputs[0], image)
        interpreter.invoke()
        for tensor, found in seen.items():
            found.add(interpreter.get_tensor(tensor))
    return {graph.tensors[tensor].name.decode(): found for tensor, found in seen.items()}


def _weights(interpreter, operators):
    """Tensor → what the error of each of its channels weighs, of those that 1×1 depthwise kernels multiply."""
    kernels = {
        operator.inputs[0]: interpreter.get_tensor(operator.inputs[1])
        for code, operator in operators
        if code == schema.BuiltinOperator.DEPTHWISE_CONV_2D
    }
    return {tensor: np.square(kernel.ravel()) for tensor, kernel in kernels.items() if kernel.shape[1:3] == (1, 1)}


def _inputs(content, code):
    """The names of what goes into the operators of a file that have a `schema.BuiltinOperator`'s code."""
    graph, operators = _operators(content)
    return {graph.tensors[i].name.decode() for its, operator in operators if its == code for i in operator.inputs}


def _operators(content):
    """The graph of a file, and its operators, each with its code before it."""
    model = _parsed(content)
    graph = model.subgraphs[0]
    codes = [flatbuffer_utils.get_builtin_code_from_operator_code(code) for code in model.operatorCodes]
    return graph, [(codes[operator.opcodeIndex], operator) for operator in graph.operators]


def only_matrices(content):
    """A float32 file with the weights of its convolutions and matrix products, not of depthwise ones, in int8.

    Activations are quantized as they come ("dynamic range").
    """
    quantizer = Quantizer(content)
    for operation in (TFLOperationName.CONV_2D, TFLOperationName.FULLY_CONNECTED):
        quantizer.add_dynamic_config(".*", operation, 8)
    return _written(_quantized(quantizer))


def _everything(content, found, input_type):
    """A float32 file in int8, given the (low, high) of its tensors of activations."""
    graph = _parsed(content).subgraphs[0]
    image = graph.tensors[graph.inputs[0]].name.decode()
    bounds = {
        name: {side: np.full((1, 1, 1, 1), value, "float32") for side, value in zip(("min", "max"), bound)}
        for name, bound in (found | {image: (0, 255)}).items()
    }
    quantizer = Quantizer(content)
    quantizer.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
    quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, 8)
    quantizer.update_quantization_recipe(PATCHES, TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize")
    for operation in (TFLOperationName.OUTPUT, TFLOperationName.SOFTMAX):
        quantizer.update_quantization_recipe(".*", operation, algorithm_key="no_quantize")
    if input_type == "float32":
        quantizer.update_quantization_recipe(".*", TFLOperationName.INPUT, algorithm_key="no_quantize")
    model = _quantized(quantizer, bounds)
    if input_type == "uint8":
        # The first operation makes floats of int8. It takes uint8 as well.
        images = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
        images.type, images.quantization.zeroPoint = schema.TensorType.UINT8, [0]
    return _written(model)


def _quantized(quantizer, bounds=None):
    with _silently():
        return _parsed(quantizer.quantize(bounds).quantized_model)


@contextlib.contextmanager
def _silently():
    """Without the interpreter's warning that kept tensors take memory, and the sizes that the quantizer prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _parsed(content):
    return flatbuffer_utils.read_model_from_bytearray(bytes(content))


def _written(model):
    # with the weights inside, which the quantizer puts behind the model, where older runtimes do not look
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
