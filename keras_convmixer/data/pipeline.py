"""Images into batches. Every random draw is a pure function of (seed, epoch, image) or (seed, epoch, batch).

A training stream is a range of positions: position p is image p % n of epoch p // n, in that epoch's order, with
that epoch's draws. So a stream can start anywhere, and neither parallelism nor a restart changes a batch.
"""

import tensorflow as tf

from keras_convmixer.data import augment, decode

# Salts keep the draws of different purposes apart.
_ORDER, _CROP, _IMAGE, _BATCH = range(4)


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
    per_image = augment.image_layers(recipe, preprocessing)
    per_batch = augment.batch_layers(recipe)
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

    def batch(number, inputs):
        inputs["batch_seed"] = _fold(seed, _BATCH, number // steps, number % steps)
        for layer in per_batch:
            inputs = layer(inputs)
        outputs = (inputs["images"], inputs["labels"])
        return outputs if weights is None else (*outputs, inputs["weights"])

    positions = tf.data.Dataset.range(first_epoch * per_epoch, epochs * per_epoch)
    batches = positions.map(example, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    batches = batches.enumerate(first_epoch * steps).map(batch, tf.data.AUTOTUNE)
    return batches.prefetch(2)


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
