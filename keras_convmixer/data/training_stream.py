"""Images into training batches. Every random draw is a pure function of (seed, epoch, image).

A stream is a range of positions: position p is place p % n of epoch p // n, n being the images in an epoch's whole
batches. An epoch's order says which image has a place. So a stream can start anywhere, and neither parallelism, a
restart nor the number of hosts changes a batch.

It reads from top to bottom: a group's number → the position of its first image → (epoch, place) → the index of the
image with that place → that image → the group → the batch.
"""

import dataclasses
import functools
import math

import tensorflow as tf

from keras_convmixer.data import draws
from keras_convmixer.data.graph import stream_options
from keras_convmixer.data.training_image import group_mixer, image_maker, mixes
from keras_convmixer.data.unreadable import TRIES, first_readable
from keras_convmixer.errors import UserError
from keras_convmixer.machine import usable_cores

# What the groups of images that are made at the same time may hold, in bytes.
_MOST_BYTES = 2**30


def steps_per_epoch(images, batch_size):
    """Whole batches in an epoch. What is left over differs from epoch to epoch, since the order does.

    Raises:
        ValueError: there are fewer images than a batch takes.
    """
    if len(images) < batch_size:
        raise UserError(
            f"{len(images)} training images are fewer than the batch size {batch_size}; "
            f"set training.batch_size to at most {len(images)}"
        )
    return len(images) // batch_size


def training_batches(
    images,
    preprocessing,
    recipe,
    *,
    batch_size,
    seed,
    epochs,
    first_epoch=0,
    first_step=0,
    label_smoothing=0.0,
    class_weights=None,
    shard=(0, 1),
    unreadable=None,
    make=None,
):
    """The batches of epochs `first_epoch`, from its batch `first_step` on, to `epochs`, one after another.

    In the place of an image that cannot be read stands another of the split, with the draws of the image that it
    replaces; no other image moves.

    Args:
        images: the training split, `EncodedImages`.
        preprocessing, recipe, label_smoothing, class_weights: see `training_image.image_maker`.
        batch_size: images in a global batch.
        seed: of every draw.
        shard: (index, count): this host's number and how many hosts there are. A host gets its part of each batch,
            and reads nothing else; the parts of all hosts, one after another, are the batch of a single host.
        unreadable: an `Unreadable` that is told of each image that cannot be read.
        make: what `image_maker` made of the same arguments, if it was called before: to trace it takes a second.

    Returns:
        A `tf.data.Dataset` of (pixels, labels), with weights as a third where given: float32 pixels
        `(n, height, width, 3)` in 0–255, float32 soft labels `(n, classes)`, float32 `(n,)`, where n is
        batch_size / count. Where one image after another cannot be read it raises InvalidArgumentError, of which
        `unreadable.stream_in_use` makes an OSError.

    Raises:
        ValueError: there are too few images, or a batch cannot be shared out as asked.
    """
    groups = _groups(recipe, steps_per_epoch(images, batch_size), batch_size, shard)
    cores = usable_cores()
    at_once, images_of_each = _parallelism(cores, groups.size * 12 * math.prod(preprocessing.input_size))
    make = make or image_maker(images, preprocessing, recipe, seed, label_smoothing, class_weights)
    mixed = group_mixer(preprocessing, recipe)

    @tf.autograph.experimental.do_not_convert
    def group(number):
        number_of_epoch, place = groups.epoch_and_place(number)
        epoch = _Epoch(seed, number_of_epoch, len(images), make, unreadable)
        inputs = _mixed_group(epoch, place, groups.size, images_of_each, mixed)
        return tuple(inputs[name] for name in ("images", "labels", "weights") if name in inputs)

    first = first_epoch * groups.per_epoch + first_step * groups.per_batch
    batches = tf.data.Dataset.range(first, epochs * groups.per_epoch).map(group, at_once)
    if groups.per_batch > 1:
        batches = batches.batch(groups.per_batch, drop_remainder=True).map(_joined)
    return batches.prefetch(2).with_options(_a_core_an_image(cores))


def first_images(images, preprocessing, recipe, make, *, batch_size, seed, most, shard=(0, 1)):
    """What makes the first images of any epoch, as `training_batches` of the same arguments gives them.

    No stream is read for it, and an image that cannot be read is not noted.

    Args:
        make: what `image_maker` made of the same arguments.
        most: how many images to make. Where they are mixed with each other it takes a whole group of them.

    Returns:
        A function of an epoch's number to its pixels, float32 numpy `(n, height, width, 3)` in 0–255, where n is at
        most `most`. It raises as `training_batches` does where one image after another cannot be read.
    """
    groups = _groups(recipe, steps_per_epoch(images, batch_size), batch_size, shard)
    size = groups.size if mixes(recipe) else min(most, groups.size)
    mixed = group_mixer(preprocessing, recipe)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)], autograph=False)
    def made(number_of_epoch):
        number_of_epoch, place = groups.epoch_and_place(number_of_epoch * groups.per_epoch)
        epoch = _Epoch(seed, number_of_epoch, len(images), make, unreadable=None)
        return _mixed_group(epoch, place, size, usable_cores(), mixed)["images"][:most]

    def first(epoch):
        with tf.device("CPU"):  # as tf.data does
            return made(tf.constant(epoch, tf.int64)).numpy()

    return first


def _a_core_an_image(cores):
    options = stream_options()
    # Each image on one core, and as many threads as cores: more of either wait for each other and for the memory.
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = cores
    return options


@dataclasses.dataclass(frozen=True)
class _Groups:
    """A host's part of a stream in groups: the images that are made together, and mixed with each other.

    Attributes:
        size: images in a group.
        batch_size: images in a global batch.
        steps: batches in an epoch.
        share: images of each batch that are this host's.
        host: its number.
    """

    size: int
    batch_size: int
    steps: int
    share: int
    host: int

    @property
    def per_batch(self):
        return self.share // self.size

    @property
    def per_epoch(self):
        return self.steps * self.per_batch

    def epoch_and_place(self, number):
        """The epoch, and the place in its order, of the first image of this host's group of a number, all int64."""
        before = number * self.size  # this host's images that come before
        position = before // self.share * self.batch_size + self.host * self.share + before % self.share
        per_epoch = self.steps * self.batch_size
        return position // per_epoch, position % per_epoch


def _groups(recipe, steps, batch_size, shard):
    """The `_Groups` of a host. Raises ValueError if a batch cannot be shared out so."""
    host, count = shard
    if not 0 <= host < count or batch_size % count:
        raise UserError(f"a batch of {batch_size} images cannot be shared out as {shard}; expected (index, count)")
    share = batch_size // count
    size = (recipe.mix_group or batch_size) if mixes(recipe) else share
    if share % size:
        raise UserError(
            f"MixUp and CutMix act on groups of {size} images, which do not fill the {share} of a host; "
            f"set augmentation.mix_group to a divisor of {share}"
        )
    return _Groups(size, batch_size, steps, share, host)


class _Epoch:
    """The images of an epoch by their place in its order, as graph functions.

    Args:
        seed: of the stream.
        number: of the epoch.
        count: images in the split.
        make: see `training_image.image_maker`.
        unreadable: an `Unreadable`, or None.
    """

    def __init__(self, seed, number, count, make, unreadable):
        self._number, self._count, self._unreadable = number, count, unreadable
        self._keys = draws.epoch_keys(seed, number)
        self._make = functools.partial(make, self._keys["augmentation"], number)

    def index(self, place):
        """Which image has this place."""
        return draws.image_at(place, self._keys["order"], self._count)

    def intended(self, place):
        """The image with this place. It fails if that one cannot be read."""
        index = self.index(place)
        return self._make(index, index)

    def readable(self, place):
        """The same, or in its place the first of its stand-ins that can be read."""
        index = self.index(place)
        others = draws.stand_ins(self._keys["stand_in"], index, self._count, TRIES - 1)
        return first_readable(
            functools.partial(self._make, index), tf.concat([[index], others], 0), self._unreadable and self._failed
        )

    def _failed(self, index):
        return tf.group(self._unreadable.noted(self._number, index))


def _mixed_group(epoch, place, size, parallel, mixed):
    """The `size` images of an epoch from a place on, mixed with each other by a graph function unless that is None.

    They are made all at once, or one by one where not all can be read.
    """
    places = tf.data.Dataset.range(place, place + size)
    at_once = places.map(epoch.intended, parallel).ignore_errors().batch(size, drop_remainder=True)
    one_by_one = places.map(epoch.readable, parallel).batch(size, drop_remainder=True)
    inputs = at_once.concatenate(one_by_one).take(1).get_single_element()
    return mixed(inputs) if mixed else inputs


def _parallelism(cores, size):
    """How many groups of `size` bytes are made at the same time, and how many images of each (None: one by one).

    A group to a core is fastest. tf.data's own tuning makes more and more groups at the same time, until they drive
    each other out of the processor's cache.
    """
    groups = max(1, min(cores, _MOST_BYTES // size))
    return groups, -(-cores // groups) if groups < cores else None


def _joined(*groups):
    return tuple(tf.reshape(values, (-1, *values.shape[2:])) for values in groups)
