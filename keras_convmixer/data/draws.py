"""The random numbers of a training stream, each a pure function of (seed, epoch, image) and of what it is for."""

import tensorflow as tf

_PURPOSES = ("order", "stand_in", "augmentation")
# Four, TensorFlow's own choice, leave the orders of different keys correlated.
_ROUNDS = 8


def epoch_keys(seed, epoch):
    """What all draws of an epoch are made from: purpose → int32 (3,), "order", "stand_in" and "augmentation".

    They are random bits themselves, so that neither the keys of two epochs nor those of two purposes resemble each
    other, as little as those of two seeds.
    """
    bits = tf.random.stateless_uniform(
        (len(_PURPOSES), 3), tf.stack([seed, tf.cast(epoch, tf.int32)]), minval=None, maxval=None, dtype=tf.int32
    )
    return dict(zip(_PURPOSES, tf.unstack(bits)))


def image_at(place, key, count):
    """Which of `count` images has this place (from 0, int64) in the order that a key gives."""
    return tf.raw_ops.RandomIndexShuffle(
        index=place, seed=tf.bitcast(key, tf.uint32), max_index=tf.constant(count - 1, tf.int64), rounds=_ROUNDS
    )


def image_seed(key, index):
    """The seed, int32 (2,), of an image's own draws: the stateless operations scramble what is so alike."""
    return tf.stack([key[0], tf.bitwise.bitwise_xor(key[1], tf.cast(index, tf.int32))])


def key_of_all_epochs(seed):
    """int32 (3,): the key of what is drawn once for an image. It is that of no epoch."""
    return epoch_keys(seed, tf.constant(-1))["augmentation"]


def mirrored(key, epoch, index):
    """Whether an image is shown mirrored: drawn for the first epoch, then the other way round in every next one.

    So two epochs show both sides of each image, which a draw for every epoch does for half of them (Jordan, arXiv
    2404.00498). The key is that of all epochs.
    """
    first = tf.random.stateless_uniform((), image_seed(key, index)) < 0.5
    return tf.math.logical_xor(first, epoch % 2 == 1)


def stand_ins(key, index, count, tries):
    """int64 (tries,): which of `count` images take the place of an image, one after another."""
    return tf.random.stateless_uniform((tries,), image_seed(key, index), maxval=count, dtype=tf.int64)
