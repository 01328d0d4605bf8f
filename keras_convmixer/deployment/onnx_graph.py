"""A folded ConvMixer as an ONNX graph, in float32 or with its convolutions in 8 bits."""

from typing import NamedTuple

import keras
import numpy as np
import onnx
from onnx import helper, numpy_helper

from keras_convmixer.deployment import ranges
from keras_convmixer.errors import UserError

# The first with Gelu; ONNX Runtime reads it from 1.17 on.
OPSET, IR_VERSION = 20, 9
# Of 127. Processors with AVX2 alone add two products of uint8 and int8 in 16 bits, and only half the weights' range
# leaves room for that: with all of it a file that is right on one machine is wrong on another, without a word.
MOST_OF_A_BYTE = 63


class Rounding(NamedTuple):
    """How to round what goes into a convolution, and what comes out before the activation.

    Attributes:
        given, made: ranges (low, high), in which 0 is a whole number of steps from the ends. Where `made` is None,
            what comes out is left as it is.
    """

    given: tuple[float, float]
    made: tuple[float, float] | None = None


def onnx_graph(numbers, input_size, *, features=False, roundings=None):
    """The inference of a ConvMixer as an `onnx.ModelProto`.

    It takes `image`, float32 `(batch, height, width, 3)`, RGB in 0–255, and gives `probabilities` and `logits`
    `(batch, classes)` and, if asked for, `features` `(batch, height, width, dim)`.

    Args:
        numbers: what `fold.folded` gives for a `ConvMixer` that ends in logits.
        input_size: (height, width).
        features: whether to give the last block's map too.
        roundings: for int8: the `Rounding` of each block's depthwise and pointwise convolution, in order. It is
            written as QuantizeLinear and DequantizeLinear around a float32 convolution, of which runtimes make one
            in integers.

    Raises:
        UserError: the activation is none of `ACTIVATIONS`.
    """
    name = keras.activations.serialize(numbers.activation)
    if not isinstance(name, str) or name not in ACTIVATIONS:  # one that was registered is no string
        name = getattr(numbers.activation, "__name__", type(numbers.activation).__name__)
        raise UserError(f"ONNX and OpenVINO files have no activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    graph = _Graph(ACTIVATIONS[name])
    x = graph.node("Transpose", "image", perm=(0, 3, 1, 2))
    x = graph.affine(graph.convolution(x, numbers.patches), numbers.first)
    for i, block in enumerate(numbers.blocks):
        mixing, across = roundings[2 * i : 2 * i + 2] if roundings else (None, None)
        y = graph.convolution(x, block.depthwise, mixing, depthwise=True)
        z = graph.node("Add", graph.times(y, block.branch), graph.times(x, block.skip))
        x = graph.convolution(z, block.pointwise, across)
        x = graph.affine(x, block.after) if block.after else x
    average = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    logits = graph.node("Gemm", average, numbers.head.kernel, numbers.head.bias, out="logits")
    graph.node("Softmax", logits, out="probabilities", axis=-1)
    outputs = dict.fromkeys(("probabilities", "logits"), ("batch", numbers.head.bias.size))
    if features:
        graph.node("Transpose", graph.affine(x, numbers.features), out="features", perm=(0, 2, 3, 1))
        sides = (side // numbers.patches.kernel.shape[0] for side in input_size)
        outputs["features"] = ("batch", *sides, numbers.patches.bias.size)
    return graph.model({"image": ("batch", *input_size, 3)}, outputs)


class _Graph:
    """Nodes and constants as they come. A tensor is its name."""

    def __init__(self, activation):
        self._activation, self._nodes, self._constants = activation, [], []

    def model(self, inputs, outputs):
        def described(tensors):
            return [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                for name, shape in tensors.items()
            ]

        graph = helper.make_graph(self._nodes, "ConvMixer", described(inputs), described(outputs), self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="keras_convmixer"
        )
        onnx.checker.check_model(model)
        return model

    def node(self, operator, *inputs, out=None, **attributes):
        """Adds a node, whose inputs may be numbers, and gives the name of its output."""
        inputs = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        out = out or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [out], name=f"make_{out}", **attributes))
        return out

    def _constant(self, value):
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def times(self, x, factor):
        return x if factor is None else self.node("Mul", x, factor[:, None, None])

    def affine(self, x, numbers):
        return self.node("Add", self.times(x, numbers.scale), numbers.shift[:, None, None])

    def convolution(self, x, numbers, rounding=None, *, depthwise=False):
        """A convolution and its activation. Strides are the kernel's size, or 1 and its padding "same"."""
        kernel, bias = numbers.kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)), numbers.bias
        sides = kernel.shape[2:]
        attributes = {"strides": sides}
        if depthwise:
            before, after = [(side - 1) // 2 for side in sides], [side // 2 for side in sides]
            attributes = {"group": len(kernel), "pads": (*before, *after)}
        if rounding:
            kernel, scales = self._kernel(kernel)
            bias = self._bias(bias, scales * np.float32(ranges.scale_and_zero(*rounding.given)[0]))
            x = self._rounded(x, rounding.given)
        y = self.node("Conv", x, kernel, bias, **attributes)
        return self._activation(self, self._rounded(y, rounding.made) if rounding and rounding.made else y)

    def _rounded(self, x, bounds):
        scale, zero = ranges.scale_and_zero(*bounds)
        numbers = np.float32(scale), np.uint8(zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *numbers), *numbers)

    def _kernel(self, kernel):
        """A kernel in int8, and the scales of its output channels."""
        scales = np.abs(kernel).max((1, 2, 3)) / np.float32(MOST_OF_A_BYTE)
        scales = np.where(scales > 0, scales, np.float32(1))
        steps = np.round(kernel / scales[:, None, None, None]).astype("int8")
        return self.node("DequantizeLinear", steps, scales, np.zeros(len(kernel), "int8"), axis=0), scales

    def _bias(self, bias, scales):
        steps = np.clip(np.round(bias.astype("float64") / scales), -(2**31), 2**31 - 1).astype("int32")
        return self.node("DequantizeLinear", steps, scales, np.zeros(len(bias), "int32"), axis=0)


def _one(operator, **attributes):
    return lambda graph, x: graph.node(operator, x, **attributes)


# Keras's name → what adds it to a graph
ACTIVATIONS = {
    "gelu": _one("Gelu"),
    "relu": _one("Relu"),
    "linear": _one("Identity"),
    "leaky_relu": _one("LeakyRelu", alpha=0.2),
    "relu6": lambda graph, x: graph.node("Clip", x, np.float32(0), np.float32(6)),
    "elu": _one("Elu"),
    "selu": _one("Selu"),
    "celu": _one("Celu"),
    "silu": lambda graph, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
    "mish": _one("Mish"),
    "sigmoid": _one("Sigmoid"),
    "tanh": _one("Tanh"),
    "softplus": _one("Softplus"),
    "softsign": _one("Softsign"),
    "hard_sigmoid": _one("HardSigmoid", alpha=1 / 6),
    "hard_silu": _one("HardSwish"),
}
