"""What a recipe makes of one training image, and how it mixes a group of them."""

import functools

import tensorflow as tf

from keras_convmixer.data import decode, draws
from keras_convmixer.data.random_crop import random_resized_crop
from keras_convmixer.data.soft_labels import soft_labels
from keras_convmixer.errors import UserError


def image_maker(images, preprocessing, recipe, seed, label_smoothing=0.0, class_weights=None):
    """The graph function that makes one image.

    Args:
        images: the training split, `EncodedImages`.
        preprocessing: gives the input size, and mean and std for what is filled in after normalisation.
        recipe: a `recipes.Augmentation`.
        seed: of the stream.
        label_smoothing: see `soft_labels`.
        class_weights: one weight a class, or None.

    Returns:
        A function of the epoch's key, int32 `(3,)`, and, all int64, its number, the index of the image whose place
        it is and that of the one to show there, to the dictionary that `augment.SeededAugmentation` describes, of
        one image; with "weights" where there are any.
    """
    labels = tf.constant(images.labels, tf.int64)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)
    crop = _crop(preprocessing, recipe)
    layers = _layers(preprocessing, recipe)
    of_all_epochs = draws.key_of_all_epochs(seed)

    # A function, so that it is traced once for its several uses.
    @tf.function(
        input_signature=[tf.TensorSpec((3,), tf.int32)] + [tf.TensorSpec((), tf.int64)] * 3, autograph=False
    )
    def make(key, epoch, index, shown):
        own_seed = draws.image_seed(key, index)
        label = tf.gather(labels, shown)
        image = crop(images.encoded(shown), own_seed)
        if recipe.flip == "alternating":
            image = tf.cond(
                draws.mirrored(of_all_epochs, epoch, index), lambda: tf.reverse(image, [1]), lambda: image
            )
        inputs = {
            "images": image,
            "labels": soft_labels(label, len(images.classes), label_smoothing),
            "seeds": own_seed,
        }
        # The crop draws from the seed as it is; each layer from what its name makes of it.
        for layer in layers:
            inputs = layer(inputs)
        return inputs if weights is None else inputs | {"weights": tf.gather(weights, label)}

    return make


def group_mixer(preprocessing, recipe):
    """What mixes a group of such images, batched, with each other: a graph function, or None."""
    if not mixes(recipe):
        return None
    from keras_convmixer.data import augment

    mixed = augment.MixUpCutMix(recipe.mixup, recipe.cutmix).augment_batch
    erasing = _erasing(preprocessing, recipe)
    # Erased after the mixing, as the authors do.
    return functools.partial(mixed, then=erasing.augment_image) if erasing else mixed


def mixes(recipe):
    """Whether a recipe mixes images with each other."""
    return bool(recipe.mixup or recipe.cutmix)


def _crop(preprocessing, recipe):
    """From a file's content and a seed to pixels of the input size."""
    if recipe.crop_scale is None:
        return lambda encoded, seed: decode.evaluation_image(encoded, preprocessing)
    return functools.partial(
        random_resized_crop,
        size=preprocessing.input_size,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        interpolation=recipe.crop_interpolation,
        scaled_decoding=recipe.scaled_decoding,
    )


def _layers(preprocessing, recipe):
    """The keras-cv layers for one image, in their order."""
    random_flip = recipe.flip and recipe.flip != "alternating"
    asked = (random_flip, recipe.translation, recipe.color_jitter, recipe.rand_augment)
    if not any((*asked, recipe.random_erasing, recipe.cutout)):
        return []
    # Said here, not by the layers alone: their errors come out of a graph that is being built.
    side = min(preprocessing.input_size)
    if recipe.cutout > side or recipe.translation >= side:
        raise UserError(
            f"augmentation.cutout {recipe.cutout} or translation {recipe.translation} is too much for images of "
            f"{side} pixels"
        )
    from keras_convmixer.data import augment  # keras-cv takes seconds to import

    layers = []
    if random_flip:
        layers.append(augment.RandomFlip(recipe.flip))
    if recipe.translation:
        layers.append(augment.RandomTranslation(recipe.translation))
    if recipe.color_jitter:
        layers.append(augment.ColorJitter(*[recipe.color_jitter] * 3))
    if recipe.rand_augment:
        layers.append(augment.rand_augment(recipe.rand_augment))
    if recipe.random_erasing and not mixes(recipe):
        layers.append(_erasing(preprocessing, recipe))
    if recipe.cutout:
        layers.append(augment.Cutout(recipe.cutout, preprocessing.mean))
    return layers


def _erasing(preprocessing, recipe):
    from keras_convmixer.data import augment

    if not recipe.random_erasing:
        return None
    return augment.RandomErasing(
        recipe.random_erasing, mode=recipe.erasing, mean=preprocessing.mean, std=preprocessing.std
    )
