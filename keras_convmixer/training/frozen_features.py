"""Training the head alone on features that the frozen backbone computes once: minutes where epochs take hours."""

import dataclasses
import hashlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer import files
from keras_convmixer.data.fingerprints import fingerprints
from keras_convmixer.data.soft_labels import soft_labels
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.parts import architecture
from keras_convmixer.progress import Progress


class FrozenFeatures:
    """The data of a `RecipeData` as a frozen backbone sees it: a source of (features, labels) for the head.

    The backbone looks at `cached_crops` epochs of the training stream and once at the held-out split. Epoch e of
    the head sees what it made of the stream's epoch e modulo their number, so that with as many as epochs this is
    the training of the head under a frozen backbone. Features are kept in the cache, by the content of all that
    they depend on.

    Args:
        data: a `RecipeData`. bundle: the `Bundle` whose head is to be trained.

    Attributes:
        head: the model that is trained: from features to logits, by the head of the bundle's own.

    Raises:
        UserError: the recipe mixes images, whose features no longer belong to one of them.
    """

    starts_at_steps = True

    def __init__(self, data, bundle):
        self.data, self.recipe, self.classes = data, data.recipe, data.classes
        self.steps, self.images_per_epoch = data.steps, data.images_per_epoch
        if self.recipe.augmentation.mixup or self.recipe.augmentation.cutmix:
            raise UserError(
                "training.cached_crops keeps features of single images: set augmentation.mixup and cutmix to 0, or "
                "training.cached_crops to null"
            )
        pool = bundle.model.get_layer("pool").output
        self._backbone, self._preprocessing = keras.Model(bundle.model.input, pool), bundle.preprocessing
        features, rate = keras.Input(pool.shape[1:], name="features"), self.recipe.model.dropout
        x = keras.layers.Dropout(rate, name="dropout")(features) if rate else features
        self.head = keras.Model(features, bundle.model.get_layer("head")(x), name="head_alone")
        self._kept = self._cached()

    def batches(self, preprocessing, first_epoch, first_step=0):
        """Batches (features, soft labels), with weights as a third where the recipe weighs classes."""
        training, size = self.recipe.training, self.recipe.training.batch_size

        def taken():
            for epoch in range(first_epoch, training.epochs):
                number = epoch % training.cached_crops
                features, index = self._kept[f"pass_{number}"], self._kept[f"index_{number}"]
                order = np.arange(len(features))
                if epoch >= training.cached_crops:
                    np.random.default_rng((self.recipe.seed, epoch)).shuffle(order)
                for batch in order.reshape(-1, size)[first_step if epoch == first_epoch else 0 :]:
                    yield features[batch], self.data.images.labels[index[batch]]

        def ready(features, labels):
            soft = soft_labels(labels, len(self.classes), training.label_smoothing)
            if not training.class_weights:
                return features, soft
            return features, soft, tf.gather(tf.constant(self.data.class_weights(), tf.float32), labels)

        signature = (tf.TensorSpec((size, *self.head.input_shape[1:])), tf.TensorSpec((size,), tf.int64))
        return tf.data.Dataset.from_generator(taken, output_signature=signature).map(ready)

    def first_images(self, preprocessing, most):
        """A function of an epoch to crops whose features it trains on."""
        of_pass = self.data.first_images(preprocessing, most)
        return lambda epoch: of_pass(epoch % self.recipe.training.cached_crops)

    @property
    def digest(self):
        return self.data.digest

    def unreadable(self, epoch, held_out):
        return self.data.unreadable(epoch, held_out)

    def noted(self, epoch):
        return self.data.noted(epoch)

    def note_again(self, epoch, indices):
        self.data.note_again(epoch, indices)

    def note_images(self, workdir):
        self.data.note_images(workdir)

    def counted(self):
        return self.data.counted()

    def described(self):
        return self.data.described()

    def meter(self, preprocessing, replicas):
        kept = (self._kept[name] for name in ("held_out", "held_out_labels", "held_out_skipped"))
        return _HeadMeter(self.data.dataset.held_out(), self.data.dataset.held_out_name, *kept)

    def _cached(self):
        path = files.cache_dir() / "features" / f"{self._key()}.npz"
        if not path.exists():
            found = self._computed()
            with files.replacing(path) as temporary:
                np.savez(temporary, **found)
        with np.load(path) as arrays:
            return dict(arrays)

    def _key(self):
        """A hash of the backbone and its weights, of the images' content and all that makes a crop."""
        digest = hashlib.blake2b(digest_size=16)
        for weight in self._backbone.get_weights():
            digest.update(np.ascontiguousarray(weight))
        training = self.recipe.training
        settings = (self.recipe.seed, self.recipe.augmentation, training.batch_size, training.cached_crops)
        digest.update(repr((settings, self._preprocessing, architecture(self._backbone))).encode())
        for images in (self.data.images, self.data.dataset.held_out()):
            digest.update(fingerprints(images).tobytes() + images.labels.tobytes())
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
            for step, (batch, labels) in enumerate(stream):
                began = time.monotonic()
                features.append(self._backbone.predict_on_batch(batch))
                indices.append(labels.numpy().argmax(1))
                progress.update(len(batch))
                if step == 1:  # the first also compiles
                    _announce(time.monotonic() - began, total / training.batch_size)
        held_out = self.data.meter(self._preprocessing, 1).measure(self._backbone, self.classes)
        found = {"held_out": held_out.logits, "held_out_labels": held_out.labels}
        found |= {"held_out_skipped": np.array(held_out.skipped, str).reshape(-1, 2)}
        for i in range(crops):
            part = slice(i * self.steps, (i + 1) * self.steps)
            found |= {f"pass_{i}": np.concatenate(features[part]), f"index_{i}": np.concatenate(indices[part])}
        return found


class _HeadMeter:
    """What `Meter` is, on features that are kept."""

    unread = ()

    def __init__(self, images, split, features, labels, skipped):
        self._split, self._features, self._labels = split, features, labels
        self._skipped = tuple(map(tuple, skipped.tolist()))
        left_out = {name for name, _ in self._skipped}
        read = images.subset([i for i, name in enumerate(images.names) if name not in left_out])
        self._images = read if len(read) == len(labels) else None  # the files may have other names by now

    def measure(self, model, classes, *, verbose=0):
        logits = model.predict(self._features, verbose=verbose)
        names = self._images.names if self._images else ()
        return Evaluation(
            self._split, classes, logits, self._labels, self._skipped, names=names, images=self._images
        )


def _announce(seconds, batches):
    minutes = max(1, round(seconds * batches / 60))
    print(
        f"the backbone stays as it is and looks once at each crop: {minutes} min or so; the head takes seconds",
        file=sys.stderr,
        flush=True,
    )
