"""A ConvMixer in integers of 8 bits, with scales and ranges by which little is lost.

A TFLite tensor of activations has one scale for all its channels. Four things make that do (docs/deployment.md has
what each is worth):

- In a block, x is an activation plus a shift for each channel, and where the activation is 0, as it often is, x is
  that shift. What rounding does to it is the same at every such pixel, so that a large kernel sums it up. Hence
  each channel of x, and of the block's sum z, is divided by a number that makes its shift a whole multiple of the
  scale. The kernels before and after make up for that, and their weights have a scale for each channel.
- By the same means, channels of a small range are enlarged half the way (in the logarithm) to the largest one's.
- The range of a sum or of a part of it is the one with the least squared error, which leaves rare outliers out.
  What goes into a GELU is cut where nothing comes out.
- After the average, the head computes in float32, from int8 weights: logits are not rounded.
"""

import contextlib
import io
import re
import warnings
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer

from keras_convmixer.deployment import converter, fold
from keras_convmixer.deployment.lite_graph import lite_graph
from keras_convmixer.machine import usable_cores

LEVELS = 255
# GELU(-4) = -0.0001
GELU_TAIL = -4.0
MOST_ENLARGED = 64
# of an image's values in a tensor are counted, whole pixels at even distances
MOST_COUNTED = 100_000
SUMS = (schema.BuiltinOperator.ADD, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
FLOAT = (TFLOperationName.INPUT, TFLOperationName.OUTPUT, TFLOperationName.SOFTMAX)


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

    divisors, ranges_of_x = zip(*_divisors(numbers, _observed(in_float(numbers), images, counted=())))
    content = in_float(divided(numbers, divisors))
    ranges = {}
    for name, seen in _observed(content, images, counted=SUMS).items():
        block = re.match(r"block_(\d+)/x/", name)
        ranges[name] = ranges_of_x[int(block[1])] if block else _range(seen)
    return _everything(content, ranges, input_type)


class _Seen(NamedTuple):
    """What a tensor of activations was seen to be.

    Attributes:
        low, high: least and greatest value of each channel.
        counts: how often each float16 number occurred, by its bits, among the values rounded to float16; or None.
        consumers: what takes it, as codes of `schema.BuiltinOperator`.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray | None
    consumers: set


def _observed(content, images, counted):
    """Name → `_Seen`, of every tensor of activations of a float32 file. `counted`: by which operators made."""
    model = _parsed(content)
    graph = model.subgraphs[0]
    codes = [flatbuffer_utils.get_builtin_code_from_operator_code(code) for code in model.operatorCodes]
    operators = [(codes[operator.opcodeIndex], operator) for operator in graph.operators]
    made = {output: code for code, operator in operators for output in operator.outputs}
    with _silently():
        interpreter = Interpreter(
            model_content=content, num_threads=usable_cores(), experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    lows, highs = (dict.fromkeys(made, start) for start in (np.inf, -np.inf))
    counts = {tensor: 0 if operator in counted else None for tensor, operator in made.items()}
    for image in images:
        interpreter.set_tensor(graph.inputs[0], image)
        interpreter.invoke()
        for tensor in made:
            values = interpreter.get_tensor(tensor)
            values = values.reshape(-1, values.shape[-1])
            lows[tensor] = np.minimum(lows[tensor], values.min(0))
            highs[tensor] = np.maximum(highs[tensor], values.max(0))
            if counts[tensor] is not None:
                some = values[:: -(-values.size // MOST_COUNTED)].astype("float16")
                counts[tensor] += np.bincount(some.view("uint16").ravel(), minlength=2**16)
    return {
        graph.tensors[tensor].name.decode(): _Seen(
            lows[tensor],
            highs[tensor],
            counts[tensor],
            {code for code, operator in operators if tensor in operator.inputs},
        )
        for tensor in made
    }


def _divisors(numbers, seen):
    """For each block by what to divide its channels, and the (low, high) that x then has."""
    shifts = [numbers.first.shift, *(block.after.shift for block in numbers.blocks[:-1])]
    for i, shift in enumerate(shifts):
        own = {name: tensor for name, tensor in seen.items() if name.startswith(f"block_{i}/")}
        (x,) = (tensor for name, tensor in own.items() if name.startswith(f"block_{i}/x/"))
        sizes = [np.maximum(-tensor.low, tensor.high) for tensor in own.values()]
        shares = [size / size.max() for size in sizes if size.any()]
        divisor = np.sqrt(np.max(shares, 0, initial=1 / MOST_ENLARGED))
        low, high = _bounds(x.low / divisor, x.high / divisor)
        scale = (high - low) / LEVELS
        # Rounded down, so that the range is kept. A shift that is less than the scale has to be rounded.
        steps = np.floor(np.abs(shift) / divisor / scale)
        divisor = np.where(steps > 0, np.abs(shift) / np.maximum(steps, 1) / scale, divisor)
        zero = np.round(-low / scale)
        yield divisor.astype("float32"), (-zero * scale, (LEVELS - zero) * scale)


def divided(numbers, divisors):
    """The same inference, with x and z of each block divided, channel by channel.

    Args:
        numbers: a `fold.Folded`. divisors: for each block an array `(dim,)` of positive numbers.
    """

    def affine(after, divisor):
        scale = np.ones_like(after.shift) if after.scale is None else after.scale
        return fold.Affine(scale / divisor, after.shift / divisor)

    blocks = []
    for block, divisor, following in zip(numbers.blocks, divisors, [*divisors[1:], None]):
        (kernel, bias), branch = block.depthwise, block.branch
        if fold.is_homogeneous(numbers.activation):
            bias = bias / divisor
        else:
            kernel, branch = kernel * divisor[:, None], (1.0 if branch is None else branch) / divisor
        pointwise = fold.Convolution(block.pointwise.kernel * divisor[:, None], block.pointwise.bias)
        after = None if following is None else affine(block.after, following)
        blocks.append(fold.Block(fold.Convolution(kernel, bias), branch, block.skip, pointwise, after))
    return numbers._replace(first=affine(numbers.first, divisors[0]), blocks=tuple(blocks))


def _range(seen):
    """The (low, high) by which to quantize a tensor. Zero lies in it."""
    low, high = _bounds(seen.low, seen.high)
    if schema.BuiltinOperator.GELU in seen.consumers:
        return max(low, GELU_TAIL), high
    if seen.counts is None:
        return low, high
    (bits,) = np.nonzero(seen.counts)
    values, counts = bits.astype("uint16").view("float16").astype("float32"), seen.counts[bits]

    def squared_error(low, high):
        """Of rounding to whole multiples of the range's scale, within the range."""
        if low == high:
            return np.inf
        scale = (high - low) / LEVELS
        zero = np.round(-low / scale)
        steps = np.clip(np.round(values / scale), -zero, LEVELS - zero)
        return counts @ np.square(steps * scale - values)

    least, greatest = low, high
    for _ in range(2):
        low = min(np.linspace(0.1, 1, 19) * least, key=lambda low: squared_error(low, high))
        high = min(np.linspace(0.1, 1, 19) * greatest, key=lambda high: squared_error(low, high))
    return low, high


def only_matrices(content):
    """A float32 file with the weights of its convolutions and matrix products, not of depthwise ones, in int8.

    Activations are quantized as they come ("dynamic range").
    """
    quantizer = Quantizer(content)
    for operation in (TFLOperationName.CONV_2D, TFLOperationName.FULLY_CONNECTED):
        quantizer.add_dynamic_config(".*", operation, 8)
    return _written(_quantized(quantizer))


def _bounds(low, high):
    """The least and the greatest of all channels' bounds, and 0 between them. Of zeros alone, (0, 1)."""
    low, high = min(low.min(), 0.0), max(high.max(), 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def _everything(content, ranges, input_type):
    """A float32 file in int8, given the ranges of its tensors of activations."""
    graph = _parsed(content).subgraphs[0]
    image = graph.tensors[graph.inputs[0]].name.decode()
    bounds = {
        name: {side: np.full((1, 1, 1, 1), value, "float32") for side, value in zip(("min", "max"), bound)}
        for name, bound in (ranges | {image: (0, 255)}).items()
    }
    quantizer = Quantizer(content)
    quantizer.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
    quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, 8)
    for operation in FLOAT:
        quantizer.update_quantization_recipe(".*", operation, algorithm_key="no_quantize")
    model = _quantized(quantizer, bounds)
    if input_type == "uint8":
        # The first operation quantizes float32 images. It takes uint8 ones as well.
        images = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
        images.type, images.quantization = schema.TensorType.UINT8, schema.QuantizationParametersT()
        images.quantization.scale, images.quantization.zeroPoint = [1.0], [0]
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
