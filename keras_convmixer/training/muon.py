"""Muon for the matrices in a network, AdamW for the rest."""

import keras
from keras import ops

from keras_convmixer.training.optimizer import AdamW


@keras.saving.register_keras_serializable(package="keras_convmixer")
class Muon(AdamW):
    """Muon (Jordan et al., 2024) on the kernels of some layers, taken as matrices; `AdamW` on all else.

    A matrix is moved by its momentum, orthogonalised: Newton–Schulz steps bring its singular values near 1. These
    are Keras's, as is the scale of the step, about that of AdamW's (`0.2 * sqrt(max(n, m))`, arXiv 2502.16982).
    `keras.optimizers.Muon` orthogonalises variables of two dimensions alone, and a pointwise convolution's kernel
    has four: `(1, 1, n, m)` is the matrix `(n, m)` here.

    Args:
        matrices: names of the layers whose kernels are taken as matrices, all leading dimensions as one.
        momentum: of the matrices, Nesterov's.
        matrix_multiplier: factor on the learning rate of the matrices.
        learning_rate, weight_decay and the rest: as of `AdamW`.
    """

    def __init__(self, learning_rate=0.001, *, matrices=(), momentum=0.95, matrix_multiplier=1.0, **kwargs):
        super().__init__(learning_rate, **{"name": "muon"} | kwargs)
        self.matrices = list(matrices)
        self.momentum = momentum
        self.matrix_multiplier = matrix_multiplier
        self._of_keras = keras.optimizers.Muon()

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        kernels = [f"{name}/kernel" for name in self.matrices]
        self._is_matrix = ["/".join(variable.path.split("/")[-2:]) in kernels for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        if not self._is_matrix[i]:
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype) * self._multipliers[i] * self.matrix_multiplier
        moment = self._first_moments[i]
        self.assign_add(moment, gradient + (self.momentum - 1) * moment)
        matrix = ops.reshape(gradient + self.momentum * moment, (-1, variable.shape[-1]))
        update = self._of_keras.zeropower_via_newtonschulz5(matrix, self._of_keras.ns_steps)
        update = ops.reshape(self._of_keras.lr_adjust(update), variable.shape)
        self.assign_sub(variable, rate * (update + self._decays[i] * variable))

    def get_config(self):
        return super().get_config() | {
            "matrices": self.matrices,
            "momentum": self.momentum,
            "matrix_multiplier": self.matrix_multiplier,
        }
