"""How functions stand in a tf.data graph."""

import tensorflow as tf


def apart(function):
    """The function as a single node of the graph that it is called in; called eagerly, the function itself.

    Each node of a branch that is not taken costs time all the same. So what is seldom needed stands apart.
    """
    node = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    def call(*args):
        return (function if tf.executing_eagerly() else node)(*args)

    return call
