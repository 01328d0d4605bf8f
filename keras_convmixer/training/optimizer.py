"""AdamW as PyTorch computes it."""

import keras
from keras import ops

from keras_convmixer.errors import UserError
from keras_convmixer.parts import parts
from keras_convmixer.training.after_reduction import AfterReduction


@keras.saving.register_keras_serializable(package="keras_convmixer")
class AdamW(AfterReduction, keras.optimizers.Optimizer):
    """Decoupled AdamW (arXiv 1711.05101) with `torch.optim.AdamW`'s arithmetic.

    It differs from `keras.optimizers.AdamW` in three ways. Epsilon is added after the bias correction of the
    second moment, which matters at the recipe's epsilon of 1e-3. Decay skips 1-D parameters (biases and
    BatchNorm) unless told otherwise. And under a `tf.distribute` strategy `global_clipnorm` clips the gradient of
    the whole batch (see `AfterReduction`).

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: each step subtracts `learning_rate * weight_decay * w`.
        beta_1, beta_2: decay rates of the two moments.
        epsilon: added to the root of the corrected second moment.
        decay_1d: whether 1-D parameters decay too.
        multipliers: layer name → factor on the learning rate of that layer's parameters. Others have 1.
        global_clipnorm: largest norm of the whole gradient, or None.
        loss_scaling: see `AfterReduction`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        weight_decay=0.01,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        decay_1d=False,
        multipliers=None,
        name="adamw",
        **kwargs,
    ):
        if kwargs.get("clipnorm") is not None or kwargs.get("clipvalue") is not None:
            raise UserError("this AdamW clips by the global norm alone: use global_clipnorm")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.decoupled_decay = weight_decay
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.decay_1d = decay_1d
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._first_moments = [
            self.add_variable_from_reference(variable, name="first_moment") for variable in variables
        ]
        self._second_moments = [
            self.add_variable_from_reference(variable, name="second_moment") for variable in variables
        ]
        self._decays = [
            self.decoupled_decay if self.decay_1d or len(variable.shape) > 1 else 0.0 for variable in variables
        ]
        layers = [variable.path.rpartition("/")[0].rpartition("/")[2] for variable in variables]  # "": of none
        self._multipliers = [self.multipliers.get(layer, 1.0) for layer in layers]

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        rate = ops.cast(learning_rate, dtype) * self._multipliers[i]
        step = ops.cast(self.iterations + 1, dtype)
        first, second = self._first_moments[i], self._second_moments[i]

        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        # Not ops.cast: it would round the numbers to float32 on their way to float64.
        beta_1, beta_2 = (ops.convert_to_tensor(beta, dtype) for beta in (self.beta_1, self.beta_2))
        root = ops.sqrt(second) / ops.sqrt(1 - ops.power(beta_2, step))
        update = first / (1 - ops.power(beta_1, step)) / (root + self.epsilon)
        self.assign_sub(variable, rate * (update + self._decays[i] * variable))

    def _clip_gradients(self, grads):
        """As `torch.nn.utils.clip_grad_norm_`, down to its 1e-6."""
        if self.global_clipnorm is None:
            return grads
        norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in grads if g is not None))
        scale = ops.minimum(1, self.global_clipnorm / (norm + 1e-6))
        return [g if g is None else g * ops.cast(scale, g.dtype) for g in grads]

    def get_config(self):
        return super().get_config() | {
            "weight_decay": self.decoupled_decay,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "decay_1d": self.decay_1d,
            "multipliers": self.multipliers,
        }


def trains_head_alone(model):
    """Whether nothing but a model's head is trained, which may be all that the model has."""
    return all(variable.path.split("/")[-2] == "head" for variable in model.trainable_variables)


def rate_multipliers(model, backbone_multiplier=1.0, layer_decay=1.0):
    """Layer-wise learning rates of a `ConvMixer`, as `AdamW` takes them: lowest at the stem, 1 at the head.

    Args:
        model: a `ConvMixer` or a clone with its layers' names.
        backbone_multiplier: factor on everything below the head.
        layer_decay: factor for each step away from the head: block i (from 0) of `depth` has
            `layer_decay ** (depth - i)`, the patch embedding `layer_decay ** (depth + 1)`.

    Returns:
        Layer name → factor.
    """
    if trains_head_alone(model):
        return {}
    own = parts(model)
    # The patch embedding counts as the block before the first.
    places = [(own.patch_embedding,), *((block.depthwise, block.pointwise) for block in own.blocks)]
    return {
        layer.name: backbone_multiplier * layer_decay ** (len(own.blocks) - place)
        for place, mixings in enumerate(places, start=-1)
        for mixing in mixings
        for layer in mixing
    }
