"""A step in parts, one after another, for batches that memory does not hold."""

import keras
import tensorflow as tf


class InParts(keras.Model):
    """A functional model that takes each batch in parts, and their mean gradient in one update.

    So learning rate, moving average and checkpoints count updates, whatever the number of parts; an optimizer that
    accumulates would have them count parts. BatchNorm sees one part at a time: its statistics are those of a part,
    as on as many devices.

    Args:
        inputs, outputs: of a functional model, whose layers and weights these are.
        parts: how many; of a batch with fewer images, as many as it has. Their sizes differ by one at most.
    """

    def __init__(self, inputs, outputs, parts, name):
        super().__init__(inputs, outputs, name=name)
        self.parts = parts

    def train_step(self, data):
        batch = [tensor for tensor in data if tensor is not None]
        size = tf.shape(batch[0])[0]
        parts = tf.minimum(self.parts, size)

        def part(i, sums):
            start, end = i * size // parts, (i + 1) * size // parts
            share = tf.cast(end - start, tf.float32) / tf.cast(size, tf.float32)
            gradients = self._gradients(*(tensor[start:end] for tensor in batch))
            return i + 1, [total + share * gradient for total, gradient in zip(sums, gradients)]

        zeros = [tf.zeros_like(variable.value) for variable in self.trainable_weights]
        # One after another: in parallel they would need the memory of the whole.
        _, gradients = tf.while_loop(lambda i, _: i < parts, part, (0, zeros), parallel_iterations=1)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        return self.get_metrics_result()

    def _gradients(self, x, y, sample_weight=None):
        """The gradient of the mean loss of some images, which the metrics count."""
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True)
            # Keras's losses are a replica's share of the mean over all.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            self._loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(x)[0])
            loss = self.optimizer.scale_loss(loss)
        self.compute_metrics(x, y, predicted, sample_weight=sample_weight)
        return tape.gradient(loss, self.trainable_weights)
