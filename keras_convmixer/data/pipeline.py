"""Images into batches. Every random draw is a pure function of (seed, epoch, image).

A training stream is a range of positions: position p is image p % n of epoch p // n, in that epoch's order, with
that epoch's draws. So a stream can start anywhere, and neither parallelism nor a restart changes a batch.
"""

import tensorflow as tf

from keras_convmixer.data import decode

# Salts keep the draws of different purposes apart.
_ORDER, _CROP, _IMAGE = range(3)


def steps_per_epoch(images, batch_size):
    """Whole batches in an epoch. What is left over differs from epoch to epoch, since the order does.

    Raises:
        ValueError: there are fewer images than a batch takes.
    """
    if len(images) < batch_size:
        raise ValueError(
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
):
    """The batches of epochs `first_epoch` to `epochs`, one after another.

    Args:
        images: the training split, `datasets.Images`.
        preprocessing: gives the input size, and mean and std for what is filled in after normalisation.
        recipe: a `recipe.Augmentation`.
        batch_size: images in a (global) batch. seed: of every draw.
        label_smoothing: off = s / N, on = 1 - s + s / N.
        class_weights: one weight a class, or None.

    Returns:
        A `tf.data.Dataset` of (images, labels), with weights as a third where given: float32 images
        `(batch, height, width, 3)` in 0–255, float32 soft labels `(batch, classes)`, float32 `(batch,)`.
    """
    steps = steps_per_epoch(images, batch_size)
    per_epoch = steps * batch_size
    labels = tf.constant(images.labels, tf.int64)
    num_classes = len(images.classes)
    off = label_smoothing / num_classes
    per_image, per_batch = _layers(recipe, preprocessing)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def example(position):
        epoch, place = position // per_epoch, position % per_epoch
        order = _fold(seed, _ORDER, epoch)
        index = tf.random.experimental.index_shuffle(place, order, tf.constant(len(images) - 1, tf.int64))
        encoded = images.encoded(index)
        if recipe.crop_scale is None:
            image = decode.evaluation_image(encoded, preprocessing)
        else:
            image = decode.random_resized_crop(
                encoded,
                _fold(seed, _CROP, epoch, index),
                preprocessing.input_size,
                scale=recipe.crop_scale,
                ratio=recipe.crop_ratio,
                interpolation=recipe.crop_interpolation,
            )
        label = tf.one_hot(labels[index], num_classes, 1 - label_smoothing + off, off)
        inputs = {"images": image, "labels": label, "seeds": _fold(seed, _IMAGE, epoch, index)}
        for layer in per_image:
            inputs = layer(inputs)
        if weights is not None:
            inputs["weights"] = weights[labels[index]]
        return inputs

    def batch(inputs):
        for layer in per_batch:
            inputs = layer(inputs)
        outputs = (inputs["images"], inputs["labels"])
        return outputs if weights is None else (*outputs, inputs["weights"])

    positions = tf.data.Dataset.range(first_epoch * per_epoch, epochs * per_epoch)
    batches = positions.map(example, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    return batches.map(batch, tf.data.AUTOTUNE).prefetch(2)


def _layers(recipe, preprocessing):
    """The recipe's augmentation after the crop: keras-cv layers for one image, then those for a batch."""
    per_image, per_batch = [], []
    asked = (
        recipe.flip,
        recipe.color_jitter,
        recipe.rand_augment,
        recipe.random_erasing,
        recipe.mixup,
        recipe.cutmix,
    )
    if not any(asked):
        return per_image, per_batch
    from keras_convmixer.data import augment  # keras-cv takes seconds to import

    if recipe.flip:
        per_image.append(augment.RandomFlip(recipe.flip))
    if recipe.color_jitter:
        per_image.append(augment.ColorJitter(*[recipe.color_jitter] * 3))
    if recipe.rand_augment:
        per_image.append(augment.RandAugment(recipe.rand_augment))
    mixes = recipe.mixup or recipe.cutmix
    if mixes:
        per_batch.append(augment.MixUpCutMix(recipe.mixup, recipe.cutmix))
    if recipe.random_erasing:
        erasing = augment.RandomErasing(
            recipe.random_erasing, mode=recipe.erasing, mean=preprocessing.mean, std=preprocessing.std
        )
        # Erased after the mixing, as the authors do; without mixing that is all one, and faster image by image.
        (per_batch if mixes else per_image).append(erasing)
    return per_image, per_batch


def evaluation_batches(images, preprocessing, batch_size):
    """Every image once, in order, the last batch as short as it must be.

    Returns:
        A `tf.data.Dataset` of float32 images `(<= batch_size, height, width, 3)` in 0–255.
    """

    def example(index):
        return decode.evaluation_image(images.encoded(index), preprocessing)

    return tf.data.Dataset.range(len(images)).map(example, tf.data.AUTOTUNE).batch(batch_size).prefetch(2)


def _fold(seed, *numbers):
    """A seed for stateless draws, int32 (2,), from the run's seed and any number of indices."""
    folded = tf.stack([tf.constant(seed, tf.int32), numbers[0]])
    for number in numbers[1:]:
        folded = tf.random.experimental.stateless_fold_in(folded, tf.cast(number, tf.int32))
    return folded
