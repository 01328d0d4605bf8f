"""Training the head alone on features that the frozen backbone computes once: minutes where epochs take hours."""

import dataclasses
import hashlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer import files
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import Evaluation
from keras_convmixer.progress import Progress


class FrozenFeatures:
    """The data of a `RecipeData` as a frozen backbone sees it: a source of (features, labels) for the head.

    The backbone looks at `cached_crops` epochs of the training stream and once at the held-out split. Epoch e of
    the head sees what it made of the stream's epoch e modulo their number, so that with as many as epochs this is
    the training of the head under a frozen backbone. Features are kept in the cache, by the content of all that
    they depend on.

    Args:
        data: a `RecipeData`. bundle: the `Bundle` whose head is to be trained.

    Raises:
        UserError: the recipe mixes images, whose features no longer belong to one of them.
    """

    def __init__(self, data, bundle):
        self.data, self.recipe, self.classes, self.steps = data, data.recipe, data.classes, data.steps
        if self.recipe.augmentation.mixup or self.recipe.augmentation.cutmix:
            raise UserError(
                "training.cached_crops keeps features of single images: set augmentation.mixup and cutmix to 0, or "
                "training.cached_crops to null"
            )
        pool = bundle.model.get_layer("pool")
        self._backbone, self._preprocessing = keras.Model(bundle.model.input, pool.output), bundle.preprocessing
        found = self._cached()
        self._passes = [found[f"pass_{i}"] for i in range(self.recipe.training.cached_crops)]
        self._indices = [found[f"index_{i}"] for i in range(len(self._passes))]
        self._held_out = found["held_out"], found["held_out_labels"]

    def plain(self, bundle):
        """The model that is trained: from features to logits, by the head of the bundle's own."""
        features = keras.Input(bundle.model.get_layer("pool").output.shape[1:], name="features")
        rate = self.recipe.model.dropout
        x = keras.layers.Dropout(rate, name="dropout")(features) if rate else features
        return keras.Model(features, bundle.model.get_layer("head")(x), name="head_alone")

    def batches(self, preprocessing, first_epoch):
        """Batches (features, soft labels), with weights as a third where the recipe weighs classes."""
        training = self.recipe.training

        def rows():
            for epoch in range(first_epoch, training.epochs):
                features, index = (kept[epoch % len(kept)] for kept in (self._passes, self._indices))
                order = np.arange(len(features))
                if epoch >= len(self._passes):
                    np.random.default_rng((self.recipe.seed, epoch)).shuffle(order)
                yield from zip(features[order], self.data.images.labels[index[order]])

        def ready(features, labels):
            count, share = len(self.classes), training.label_smoothing
            soft = tf.one_hot(labels, count, 1 - share + share / count, share / count)
            if not training.class_weights:
                return features, soft
            return features, soft, tf.gather(tf.constant(self.data.class_weights(), tf.float32), labels)

        dim = self._passes[0].shape[1]
        signature = (tf.TensorSpec((dim,), tf.float32), tf.TensorSpec((), tf.int64))
        return (
            tf.data.Dataset.from_generator(rows, output_signature=signature).batch(training.batch_size).map(ready)
        )

    def unreadable(self, epoch, held_out):
        return self.data.unreadable(epoch, held_out)

    def meter(self, preprocessing, replicas):
        return _HeadMeter(self.data.dataset.held_out_name, *self._held_out)

    def _cached(self):
        path = files.cache_dir() / "features" / f"{self._key()}.npz"
        if not path.exists():
            found = self._computed()
            with files.replacing(path) as temporary:
                np.savez(temporary, **found)
        with np.load(path) as arrays:
            return dict(arrays)

    def _key(self):
        """A hash of the backbone's weights, the images' content and all that makes a crop."""
        digest = hashlib.blake2b(digest_size=16)
        for weight in self._backbone.get_weights():
            digest.update(np.ascontiguousarray(weight))
        training = self.recipe.training
        settings = (self.recipe.seed, self.recipe.augmentation, training.batch_size, training.cached_crops)
        digest.update(repr((settings, self._preprocessing)).encode())
        for images in (self.data.images, self.data.dataset.held_out()):
            for i in range(len(images)):
                digest.update(hashlib.blake2b(images.encoded(tf.constant(i, tf.int64)).numpy()).digest())
            digest.update(images.labels.tobytes())
        return digest.hexdigest()

    def _computed(self):
        training, crops = self.recipe.training, self.recipe.training.cached_crops
        # Each image is a class of its own here, so that its label says which it is.
        images = self.data.images
        numbered = dataclasses.replace(
            images, classes=tuple(map(str, range(len(images)))), labels=np.arange(len(images))
        )
        stream = training_batches(
            numbered,
            self._preprocessing,
            self.recipe.augmentation,
            batch_size=training.batch_size,
            seed=self.recipe.seed,
            epochs=crops,
        )
        features, indices = [], []
        total = crops * self.steps * training.batch_size
        with Progress(f"features of {len(images)} images, {crops} crops of each", total) as progress:
            began = time.monotonic()
            for batch, labels in stream:
                features.append(self._backbone.predict_on_batch(batch))
                indices.append(labels.numpy().argmax(1))
                progress.update(len(batch))
                if len(features) == 2:  # the first also compiles
                    _announce(time.monotonic() - began, total / training.batch_size)
                began = began if len(features) > 1 else time.monotonic()
        held_out = self.data.meter(self._preprocessing, 1).measure(self._backbone, self.classes)
        found = {"held_out": held_out.logits, "held_out_labels": held_out.labels}
        for i in range(crops):
            part = slice(i * self.steps, (i + 1) * self.steps)
            found |= {f"pass_{i}": np.concatenate(features[part]), f"index_{i}": np.concatenate(indices[part])}
        return found


class _HeadMeter:
    """What `Meter` is, on features that are kept."""

    unread = ()

    def __init__(self, split, features, labels):
        self._split, self._features, self._labels = split, features, labels

    def measure(self, model, classes, *, verbose=0):
        logits = model.predict(self._features, verbose=verbose)
        return Evaluation(self._split, classes, logits, self._labels)


def _announce(seconds, batches):
    minutes = max(1, round(seconds * batches / 60))
    print(
        f"the backbone stays as it is and looks once at each crop: {minutes} min or so; the head takes seconds",
        file=sys.stderr,
        flush=True,
    )
