"""Images into batches. Every random draw is a pure function of (seed, epoch, image).

A training stream is a range of positions: position p is image p % n of epoch p // n, in that epoch's order, with
that epoch's draws. So a stream can start anywhere, and neither parallelism, a restart nor the number of hosts
changes a batch.
"""

import contextlib
import functools
import math
import os
import warnings

import tensorflow as tf

from keras_convmixer.data import decode, draws
from keras_convmixer.data.soft_labels import soft_labels
from keras_convmixer.errors import UserError

# How many images are tried for one place in a batch before the data is taken for lost.
TRIES = 20
LOST = f"{TRIES} images in a row cannot be read: is the data still there?"
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
    label_smoothing=0.0,
    class_weights=None,
    shard=(0, 1),
    unreadable=None,
):
    """The batches of epochs `first_epoch` to `epochs`, one after another.

    In the place of an image that cannot be read stands another, drawn from the whole split; the draws for it are
    those of the image it replaces, and no other image moves.

    Args:
        images: the training split, `datasets.Images`.
        preprocessing: gives the input size, and mean and std for what is filled in after normalisation.
        recipe: a `recipe.Augmentation`.
        batch_size: images in a global batch. seed: of every draw.
        label_smoothing: off = s / N, on = 1 - s + s / N.
        class_weights: one weight a class, or None.
        shard: (index, count): this host's number and how many hosts there are. A host gets its part of each batch,
            and reads nothing else; the parts of all hosts, one after another, are the batch of a single host.
        unreadable: an `Unreadable` that is told of each image that cannot be read.

    Returns:
        A `tf.data.Dataset` of (images, labels), with weights as a third where given: float32 images
        `(n, height, width, 3)` in 0–255, float32 soft labels `(n, classes)`, float32 `(n,)`, where n is
        batch_size / count. It raises tf.errors.InvalidArgumentError, saying `LOST`, where one image after another
        cannot be read.

    Raises:
        ValueError: there are fewer images than a batch takes, or a batch cannot be shared out as asked.
    """
    per_epoch = steps_per_epoch(images, batch_size) * batch_size
    share, size = _share(recipe, batch_size, shard)
    cores = _cores()
    groups, images_of_each = _parallelism(cores, size * 12 * math.prod(preprocessing.input_size))
    per_image, mixed = _layers(recipe, preprocessing)
    example = _example(images, preprocessing, recipe, per_image, label_smoothing, class_weights)
    read = _reader(images, example, size, images_of_each, unreadable)

    @tf.autograph.experimental.do_not_convert
    def group(number):
        here = number * size  # how many images of this host's come before
        position = here // share * batch_size + shard[0] * share + here % share
        epoch, first = position // per_epoch, position % per_epoch
        inputs = read(epoch, first, draws.epoch_keys(seed, epoch))
        if mixed:
            inputs = mixed(inputs)
        return tuple(inputs[name] for name in ("images", "labels", "weights") if name in inputs)

    per_epoch_here = per_epoch // batch_size * (share // size)
    batches = tf.data.Dataset.range(first_epoch * per_epoch_here, epochs * per_epoch_here).map(group, groups)
    if size < share:
        batches = batches.batch(share // size, drop_remainder=True).map(_joined)
    options = _options()
    # Each image on one core, and as many threads as cores: more of either wait for each other and for the memory.
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = cores
    return batches.prefetch(2).with_options(options)


def _example(images, preprocessing, recipe, per_image, label_smoothing, class_weights):
    """The graph function that makes one image, from (epoch's key, its index, which image to show in its place)."""
    labels = tf.constant(images.labels, tf.int64)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    # A function, so that it is traced once for its several uses.
    @tf.function(
        input_signature=[tf.TensorSpec((3,), tf.int32)] + [tf.TensorSpec((), tf.int64)] * 2, autograph=False
    )
    def example(key, index, shown):
        encoded = images.encoded(shown)
        # The crop draws from the seed as it is; each layer from what its name makes of it.
        seed = draws.image_seed(key, index)
        if recipe.crop_scale is None:
            image = decode.evaluation_image(encoded, preprocessing)
        else:
            image = decode.random_resized_crop(
                encoded,
                seed,
                preprocessing.input_size,
                scale=recipe.crop_scale,
                ratio=recipe.crop_ratio,
                interpolation=recipe.crop_interpolation,
            )
        label = tf.gather(labels, shown)
        soft = soft_labels(label, len(images.classes), label_smoothing)
        inputs = {"images": image, "labels": soft, "seeds": seed}
        for layer in per_image:
            inputs = layer(inputs)
        if weights is not None:
            inputs["weights"] = tf.gather(weights, label)
        return inputs

    return example


def _reader(images, example, size, parallel, unreadable):
    """The graph function that makes `size` images, from (epoch, place of the first in its order, keys).

    It makes all at once, or one by one where not all of them can be read.
    """

    def read(epoch, first, keys):
        drawn = functools.partial(example, keys["augmentation"])

        def index_at(place):
            return draws.image_at(place, keys["order"], len(images))

        def intended(place):
            index = index_at(place)
            return drawn(index, index)

        def first_readable(place):
            index = index_at(place)
            others = draws.stand_ins(keys["stand_in"], index, len(images), TRIES - 1)
            candidates = tf.concat([[index], others], 0)

            def note(attempt):
                return tf.group(unreadable.noted(epoch, candidates[attempt]))

            def attempted(attempt):
                failed = (lambda: note(attempt - 1)) if unreadable else tf.no_op
                with tf.control_dependencies([tf.cond(attempt > 0, failed, tf.no_op)]):
                    return drawn(index, candidates[attempt])

            def lost(attempt):
                with tf.control_dependencies([tf.debugging.Assert(attempt < TRIES, [LOST])]):
                    return drawn(index, index)

            attempts = tf.data.Dataset.range(TRIES).map(attempted).ignore_errors()
            end = tf.data.Dataset.range(TRIES, TRIES + 1).map(lost)
            return attempts.concatenate(end).take(1).get_single_element()

        places = tf.data.Dataset.range(first, first + size)
        at_once = places.map(intended, parallel).ignore_errors().batch(size, drop_remainder=True)
        one_by_one = places.map(first_readable, parallel).batch(size, drop_remainder=True)
        return at_once.concatenate(one_by_one).take(1).get_single_element()

    return read


def _options():
    """Those of every stream. A batch is the whole one, whatever devices it is then shared out to.

    Under a tf.distribute strategy TensorFlow would otherwise rewrite the stream so that each worker reads files of
    its own, which takes 20 s and more and comes to nothing here.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _share(recipe, batch_size, shard):
    """How many images of a batch a host gets, and how many of these are mixed with each other."""
    index, count = shard
    if not 0 <= index < count or batch_size % count:
        raise UserError(f"a batch of {batch_size} images cannot be shared out as {shard}; expected (index, count)")
    share = batch_size // count
    if not (recipe.mixup or recipe.cutmix):
        return share, share
    size = recipe.mix_group or batch_size
    if share % size:
        raise UserError(
            f"MixUp and CutMix act on groups of {size} images, which do not fill the {share} of a host; "
            f"set augmentation.mix_group to a divisor of {share}"
        )
    return share, size


def _cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parallelism(cores, size):
    """How many groups of `size` bytes are made at the same time, and how many images of each (None: one by one).

    A group to a core is fastest. tf.data's own tuning makes more and more groups at the same time, until they drive
    each other out of the processor's cache.
    """
    groups = max(1, min(cores, _MOST_BYTES // size))
    return groups, -(-cores // groups) if groups < cores else None


def _joined(*groups):
    return tuple(tf.reshape(values, (-1, *values.shape[2:])) for values in groups)


def _layers(recipe, preprocessing):
    """The recipe's augmentation after the crop: keras-cv layers for one image, and what mixes a group or None."""
    asked = (
        recipe.flip,
        recipe.color_jitter,
        recipe.rand_augment,
        recipe.random_erasing,
        recipe.mixup,
        recipe.cutmix,
    )
    if not any(asked):
        return [], None
    from keras_convmixer.data import augment  # keras-cv takes seconds to import

    per_image = []
    if recipe.flip:
        per_image.append(augment.RandomFlip(recipe.flip))
    if recipe.color_jitter:
        per_image.append(augment.ColorJitter(*[recipe.color_jitter] * 3))
    if recipe.rand_augment:
        per_image.append(augment.rand_augment(recipe.rand_augment))
    erasing = None
    if recipe.random_erasing:
        erasing = augment.RandomErasing(
            recipe.random_erasing, mode=recipe.erasing, mean=preprocessing.mean, std=preprocessing.std
        )
    if not (recipe.mixup or recipe.cutmix):
        return per_image + ([erasing] if erasing else []), None
    mixed = augment.MixUpCutMix(recipe.mixup, recipe.cutmix).augment_batch
    # Erased after the mixing, as the authors do.
    return per_image, functools.partial(mixed, then=erasing.augment_image) if erasing else mixed


@contextlib.contextmanager
def in_use():
    """A context, or a decorator, for Keras's use of these streams.

    Raises:
        OSError: one image after another cannot be read.
    """
    with warnings.catch_warnings():
        # Keras's, at the end of any stream that does not know its length. This one depends on what can be read.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if LOST not in error.message:
                raise
            raise OSError(LOST) from None


def evaluation_batches(images, preprocessing, batch_size, labels=None, read=None):
    """Every image that can be read once, in order, the last batch as short as it must be.

    Args:
        images: the split, `datasets.Images`. preprocessing: a `Preprocessing`. batch_size: images in a batch.
        labels: an array with a row for every image of the split, or None.
        read: a set that receives the position of every image that was read, or None.

    Returns:
        A `tf.data.Dataset` of float32 images `(<= batch_size, height, width, 3)` in 0–255; with `labels`, of
        (images, labels).
    """

    def example(index):
        return index, decode.evaluation_image(images.encoded(index), preprocessing)

    def outputs(indices, pixels):
        if read is not None:
            with tf.control_dependencies([tf.numpy_function(lambda i: read.update(i.tolist()), [indices], [])]):
                pixels = tf.identity(pixels)
        return pixels if labels is None else (pixels, tf.gather(labels, indices))

    examples = tf.data.Dataset.range(len(images)).map(example, tf.data.AUTOTUNE).ignore_errors()
    return examples.batch(batch_size).map(outputs).prefetch(2).with_options(_options())
