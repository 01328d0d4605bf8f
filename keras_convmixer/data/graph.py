"""How functions and streams stand in a tf.data graph."""

import tensorflow as tf


def apart(function):
    """The function as a single node of the graph that it is called in; called eagerly, the function itself.

    Each node of a branch that is not taken costs time all the same. So what is seldom needed stands apart.
    """
    node = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    def call(*args):
        return (function if tf.executing_eagerly() else node)(*args)

    return call


def stream_options():
    """The options of every stream. A batch is the whole one, whatever devices it is then shared out to.

    Under a tf.distribute strategy TensorFlow would otherwise rewrite the stream so that each worker reads files of
    its own, which takes 20 s and more and comes to nothing here.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
