"""What a model makes of an image, by place: feature maps, and the evidence for a class."""

import keras
import numpy as np

from keras_convmixer.errors import UserError
from keras_convmixer.parts import parts
from keras_convmixer.visualize.arguments import channels_last, image_for, known_block
from keras_convmixer.visualize.gradients import gradient


def feature_maps(model: keras.Model, image: np.ndarray, block: int | None = None) -> np.ndarray:
    """A block's output for one image.

    Args:
        model: a `ConvMixer`, with its top or without.
        image: as the model takes it, without the batch: `(height, width, 3)`, RGB in 0–255, or channels first as
            Keras is configured.
        block: its number, from 0; default the last.

    Returns:
        float32 `(height // patch_size, width // patch_size, dim)`, whatever the order of Keras's axes.

    Raises:
        ValueError: the model is not a ConvMixer of this package, has no such block, or takes other images.
    """
    return channels_last(_output(model, _output_of(model, known_block(model, block)), image)).astype(np.float32)


def logits(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The logits of one image, float32 `(num_classes,)`, also of a model that ends in softmax.

    Args and Raises: as for `class_activation_map`.
    """
    head = _head(model)
    pooled = _output(model, parts(model).pool.output, image).astype(np.float32)
    found = pooled @ keras.ops.convert_to_numpy(head.kernel)
    return found if head.bias is None else found + keras.ops.convert_to_numpy(head.bias)


def class_activation_map(
    model: keras.Model, image: np.ndarray, class_index: int | None = None, block: int | None = None
) -> np.ndarray:
    """Where in an image the evidence for a class lies: above 0 it speaks for the class, below 0 against it.

    Of the last block, whose output A the head's weights w and bias b see through an average over all places alone,
    the map `Σ_c w_c A_c` is exact: its mean plus b is the class's logit y (CAM, Zhou et al., arXiv 1512.04150).
    Of an earlier block `Σ_c α_c A_c` with `α_c = Σ_ij ∂y/∂A_c(i, j)`, which is Grad-CAM (Selvaraju et al., arXiv
    1610.02391) times the number of places and without its ReLU: of the last block it is the same map.

    Args:
        model: a `ConvMixer` with its top.
        image: as for `feature_maps`.
        class_index: which of the model's outputs; default the likeliest.
        block: number of the block whose output is looked at, from 0; default the last.

    Returns:
        float32 `(height // patch_size, width // patch_size)`.

    Raises:
        ValueError: the model is not a ConvMixer with its top, has no such block or class, or takes other images.
    """
    head, found, block = _head(model), parts(model), known_block(model, block)
    weights = keras.ops.convert_to_numpy(head.kernel)
    if class_index is None:
        class_index = int(logits(model, image).argmax())
    if class_index not in range(weights.shape[1]):
        raise UserError(f"class {class_index}: this model's classes are 0 to {weights.shape[1] - 1}")
    weights = weights[:, class_index]
    if block == len(found.blocks) - 1:
        return feature_maps(model, image, block) @ weights
    output = _output_of(model, block)
    rest = keras.Model(output, found.pool.output)
    activation = _output(model, output, image)
    by_place = gradient(lambda x: keras.ops.matmul(rest(x, training=False), weights[:, None]), activation[None])[0]
    alpha = channels_last(by_place).sum(axis=(0, 1))
    return (channels_last(activation) @ alpha).astype(np.float32)


def _output_of(model, block):
    return parts(model).blocks[block].pointwise.norm.output


def _output(model, tensor, image):
    """What one of a model's tensors is for one image, without the batch."""
    part = keras.Model(model.input, tensor)
    return keras.ops.convert_to_numpy(part(image_for(model, image)[None], training=False))[0]


def _head(model):
    head = parts(model).head
    if head is None:
        raise UserError(f"{model.name} has no head, and so no classes")
    if getattr(head, "quantization_mode", None):  # its kernel is not what the logits are made with
        raise UserError(f"{model.name} was quantized by Keras: give the model as it was before")
    return head
