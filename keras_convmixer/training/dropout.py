"""Dropout of which every replica draws its own."""

import keras
import tensorflow as tf


class ReplicaDropout(keras.layers.Dropout):
    """Dropout whose masks differ between the replicas of a `tf.distribute` strategy; on one device Keras's own.

    The state of Keras's seed generators is the same on every replica.
    """

    def call(self, inputs, training=False):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if not training or self.rate == 0 or replicas == 1:
            return super().call(inputs, training=training)
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.cast(self.seed_generator.next() % tf.int32.max, "int32")
        return tf.nn.experimental.stateless_dropout(
            inputs,
            self.rate,
            seed=tf.random.experimental.stateless_fold_in(seed, number),
            noise_shape=self.noise_shape and [n or tf.shape(inputs)[i] for i, n in enumerate(self.noise_shape)],
        )
