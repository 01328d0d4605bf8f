"""What comes before an optimizer's own step: the gradient is summed over the replicas, and only then looked at."""

import keras
from keras import ops

# Keras's numbers; PyTorch's are 2**16 and 2000.
_FIRST_SCALE, _STEPS_TO_DOUBLE = 2.0**15, 2000


class AfterReduction:
    """Stands before a `keras.optimizers.Optimizer` class, and has it act on the gradient of the whole batch.

    Under a `tf.distribute` strategy Keras clips the gradient of each replica before they are summed, and its
    `LossScaleOptimizer` looks for infinities in that of the first replica alone.

    Args:
        loss_scaling: multiply the loss by a scale that keeps float16 gradients from vanishing, and divide the
            gradient by it. A step whose gradient is not finite changes nothing, on no replica, and halves the
            scale; so many good steps on end double it.
    """

    def __init__(self, *args, loss_scaling=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scaling = loss_scaling

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        if self.loss_scaling:
            first = keras.initializers.Constant(_FIRST_SCALE)
            self.loss_scale = self.add_variable((), first, dtype="float32", name="loss_scale")
            self._good_steps = self.add_variable((), dtype="int", name="good_steps")

    def scale_loss(self, loss):
        """Called by Keras before it differentiates."""
        if not self.loss_scaling:
            return super().scale_loss(loss)
        return ops.multiply(loss, self.loss_scale if self.built else _FIRST_SCALE)

    def apply(self, grads, trainable_variables=None):
        grads = _summed_over_replicas(grads)
        if self.loss_scaling:
            self._apply_scaled(grads, trainable_variables)
        else:
            super().apply(grads, trainable_variables)

    def _apply_scaled(self, grads, trainable_variables):
        if not self.built:
            self.build(list(trainable_variables))
        grads = [g if g is None else ops.divide(g, self.loss_scale) for g in grads]
        finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads if g is not None]))
        # The step is taken and put back rather than branched around: that works on every backend and replica.
        variables = [*self._trainable_variables, *self.variables]
        before = [ops.copy(variable) for variable in variables]
        super().apply(grads, trainable_variables)
        for variable, value in zip(variables, before):
            variable.assign(ops.where(finite, variable.value, value))

        good_steps = ops.where(finite, self._good_steps + 1, 0)
        doubled = ops.where(good_steps == _STEPS_TO_DOUBLE, 2.0, 1.0)
        self.loss_scale.assign(self.loss_scale * ops.where(finite, doubled, 0.5))
        self._good_steps.assign(good_steps % _STEPS_TO_DOUBLE)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Called by Keras's TensorFlow backend before it updates: here they are summed already."""
        return grads_and_vars

    def get_config(self):
        return super().get_config() | {"loss_scaling": self.loss_scaling}


def _summed_over_replicas(grads):
    if keras.backend.backend() != "tensorflow":
        return grads
    import tensorflow as tf

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return grads
    there = [g for g in grads if g is not None]
    summed = iter(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [g if g is None else next(summed) for g in grads]
