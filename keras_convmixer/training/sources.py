"""Where a training's batches come from, and what it is measured on: the recipe's data, or a user's own tf.data."""

import contextlib
import functools
import hashlib

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer import shipped
from keras_convmixer.data import datasets, fingerprints
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.soft_labels import soft_labels
from keras_convmixer.data.training_image import image_maker
from keras_convmixer.data.training_stream import first_images, steps_per_epoch, training_batches
from keras_convmixer.data.unreadable import Unreadable
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.inference.meter import Meter
from keras_convmixer.training.hosts import ALONE
from keras_convmixer.training.shared_meter import SharedMeter

# So many images tell how patches are distributed.
SAMPLE = 1000
_NO_CLASS = "data must have labels that are numbers of its classes, from 0 on: {} has others"


class RecipeData:
    """The data that a recipe names.

    Attributes:
        classes: class names. steps: whole batches in an epoch. images_per_epoch: how many images these hold.
        starts_at_steps: whether `batches` can start within an epoch. digest: tells its images, learned from and
            held out, their names, order and classes, from any others; empty where that cannot be told.

    Args:
        recipe: a `Recipe`.
        hosts: the `Hosts` that train together. Each gets its share of every batch, and reads nothing else.
    """

    starts_at_steps = True

    def __init__(self, recipe, hosts=ALONE):
        self.recipe, self.hosts = recipe, hosts
        data = recipe.data
        self.dataset = datasets.open_dataset(
            data.source,
            validation_fraction=data.validation_fraction,
            seed=recipe.seed,
            allow_corrupt=data.allow_corrupt,
        )
        self.classes = self.dataset.classes
        self.images = self.dataset.training()
        self._maker = functools.cache(self._image_maker)  # one trace for all streams of a size
        self.steps = steps_per_epoch(self.images, recipe.training.batch_size)
        self.images_per_epoch = self.steps * recipe.training.batch_size
        splits = {"unreadable": self.images, "val_unreadable": self.dataset.held_out()}
        self._unreadable = {name: Unreadable(images) for name, images in splits.items()}

    @functools.cached_property
    def digest(self):
        splits = [(images.names, images.labels.tobytes()) for images in (self.images, self.dataset.held_out())]
        return hashlib.blake2b(repr((self.classes, splits)).encode(), digest_size=16).hexdigest()

    def batches(self, preprocessing, first_epoch, first_step=0):
        """The stream of all epochs from a step of `first_epoch` on."""
        training = self.recipe.training
        return training_batches(
            self.images,
            preprocessing,
            self.recipe.augmentation,
            batch_size=training.batch_size,
            seed=self.recipe.seed,
            epochs=training.epochs,
            first_epoch=first_epoch,
            first_step=first_step,
            shard=(self.hosts.index, self.hosts.count),
            unreadable=self._unreadable["unreadable"],
            make=self._maker(preprocessing),
        )

    def first_images(self, preprocessing, most):
        """A function of an epoch to at most so many of its first images, as the model sees them."""
        return first_images(
            self.images,
            preprocessing,
            self.recipe.augmentation,
            self._maker(preprocessing),
            batch_size=self.recipe.training.batch_size,
            seed=self.recipe.seed,
            most=most,
            shard=(self.hosts.index, self.hosts.count),
        )

    def _image_maker(self, preprocessing):
        training = self.recipe.training
        weights = self.class_weights() if training.class_weights else None
        augmentation, seed = self.recipe.augmentation, self.recipe.seed
        return image_maker(self.images, preprocessing, augmentation, seed, training.label_smoothing, weights)

    def sample(self, preprocessing):
        """Some training images as in evaluation, RGB in 0–255 `(n, height, width, 3)`."""
        batches = evaluation_batches(self.images.spread(SAMPLE), preprocessing, 100)
        return np.concatenate([pixels for pixels, _ in batches.as_numpy_iterator()])

    def unreadable(self, epoch, held_out):
        """How many images an epoch could not read, by the name of the figure, where there are any.

        Args:
            held_out: positions of those in the held-out split, which are named now unless they were before.
        """
        for index in held_out:
            self._unreadable["val_unreadable"].note(epoch, index)
        if self.hosts.count > 1:
            own = np.zeros(len(self.images), bool)
            own[self.noted(epoch)] = True
            self.note_again(epoch, np.flatnonzero(self.hosts.gathered(own).any(axis=0)).tolist())
        return {name: images.count(epoch) for name, images in self._unreadable.items() if images.count(epoch)}

    def noted(self, epoch):
        """The positions of the training images that an epoch could not read so far, for `note_again`."""
        return self._unreadable["unreadable"].noted_in(epoch)

    def note_again(self, epoch, indices):
        """Counts what `noted` gave when the epoch was interrupted."""
        for index in indices:
            self._unreadable["unreadable"].note(epoch, index)

    def counted(self):
        """How many images there are, by split, in words."""
        held_out = self.dataset.held_out()
        return f"{len(self.images):,} to learn from, {len(held_out):,} held out ({self.dataset.held_out_name})"

    def described(self):
        """What it is, as plain values for metrics.json."""
        images = {"train": len(self.images), self.dataset.held_out_name: len(self.dataset.held_out())}
        return {"source": self.recipe.data.source, "images": images}

    def meter(self, preprocessing, replicas):
        """What measures a model on the held-out split."""
        size = self.recipe.training.batch_size
        held_out, name = self.dataset.held_out(), self.dataset.held_out_name
        if self.hosts.count > 1:
            return SharedMeter(held_out, name, preprocessing, size // self.hosts.count, self.hosts)
        return Meter(held_out, name, preprocessing, size, fill=replicas > 1)

    def note_images(self, workdir):
        """Writes into a run's folder which images it learns from, with those that its first weights have seen."""
        known = [fingerprints.fingerprints(self.images)]
        start = self.recipe.model
        if start.weights and start.weights != "imagenet":
            folder = shipped.located(start.variant if start.weights == "cifar10" else start.weights)
            known += [fingerprints.read(folder)]
        fingerprints.write(workdir, np.concatenate([part for part in known if part is not None]))

    def class_weights(self):
        """Each class's weight, the inverse of its frequency, 1 on average over the images."""
        counts = np.bincount(self.images.labels, minlength=len(self.images.classes))
        return len(self.images) / (len(self.images.classes) * counts)


class OwnData:
    """A user's own batches: a pair of `tf.data.Dataset`s, for training and for measuring.

    Each gives batches (images, labels) or (images, labels, weights). Images are `(n, height, width, 3)`, RGB in
    0–255, augmented as the user likes; labels class numbers `(n,)` or shares `(n, classes)`, for measuring class
    numbers or one-hot. Of the recipe's sections `data` and `augmentation` nothing is used. They start at the
    beginning of an epoch only: of a training that was interrupted, the epoch begun is trained anew.

    Args:
        recipe: a `Recipe`. data: the pair. classes: class names, in the order of the labels.

    Raises:
        UserError: it is no such pair, its labels are of another kind, the length of the training data is not known,
            or the held-out data never ends. Labels of no class are found where they come: see `own_labels_in_use`.
    """

    starts_at_steps = False
    digest = ""

    def __init__(self, recipe, data, classes):
        self._check(data, classes)
        self.training, self.held_out = data
        self.classes = tuple(map(str, classes))
        self.steps = int(self.training.cardinality())
        if self.steps < 1:
            raise UserError(
                "the training data must have a known number of batches: add "
                ".apply(tf.data.experimental.assert_cardinality(N)), and leave out .repeat()"
            )
        if recipe.training.class_weights:
            raise UserError("training.class_weights is for the recipe's data: give your own batches their weights")
        self._smoothing = recipe.training.label_smoothing
        batch_size = self.training.element_spec[0].shape[0]
        self.images_per_epoch = batch_size and self.steps * batch_size

    @staticmethod
    def _check(data, classes):
        pair = isinstance(data, (tuple, list)) and len(data) == 2
        if not pair or not all(isinstance(one, tf.data.Dataset) for one in data):
            raise UserError("data must be a pair of tf.data.Dataset: (training, held out)")
        if classes is None:
            raise UserError("data of your own needs classes=[...], its class names in the order of the labels")
        for one in data:
            spec = one.element_spec
            if not isinstance(spec, tuple) or len(spec) not in (2, 3) or spec[0].shape.rank != 4:
                raise UserError(f"data must give batches (images (n, height, width, 3), labels), not {spec}")
            shape, count = spec[1].shape, len(classes)
            if not (shape.rank == 1 and spec[1].dtype.is_integer) and not (shape.rank == 2 and shape[1] == count):
                raise UserError(
                    f"data must have labels that are class numbers (n,), integers, or shares (n, {count}) of the "
                    f"{count} classes, not {shape} of {spec[1].dtype.name}"
                )
        if data[1].cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UserError("the held-out data never ends: leave out .repeat()")

    def batches(self, preprocessing, first_epoch, first_step=0):
        """The training data again and again: what differs between epochs is the user's."""
        count, share = len(self.classes), self._smoothing

        def ready(images, labels, *weights):
            if labels.shape.rank == 2:
                soft = tf.cast(labels, tf.float32) * (1 - share) + share / count
            else:
                known = tf.reduce_all((labels >= 0) & (tf.cast(labels, tf.int64) < count))
                with tf.control_dependencies([tf.debugging.Assert(known, [_NO_CLASS])]):
                    soft = soft_labels(labels, count, share)
            return (tf.cast(images, tf.float32), soft, *weights)

        return self.training.map(ready, tf.data.AUTOTUNE).repeat().prefetch(2)

    def first_images(self, preprocessing, most):
        """None: to look at them could change what comes next."""

    def sample(self, preprocessing):
        """The first training images, as they come."""
        images, *_ = next(self.training.unbatch().batch(SAMPLE).as_numpy_iterator())
        return images.astype(np.float32)

    def unreadable(self, epoch, held_out):
        return {}

    def noted(self, epoch):
        return []

    def note_again(self, epoch, indices):
        """Nothing is noted."""

    def note_images(self, workdir):
        """Which images these are only their user knows."""

    def counted(self):
        return f"batches of your own, {self.steps:,} an epoch"

    def described(self):
        return {"source": None, "images": {}}

    def meter(self, preprocessing, replicas):
        return _OwnMeter(self.held_out)


@contextlib.contextmanager
def own_labels_in_use():
    """A context, or a decorator, for Keras's use of an `OwnData`. Raises UserError for a label of no class."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if _NO_CLASS not in error.message:
            raise
        raise UserError(_NO_CLASS.format("the training part")) from None


class _OwnMeter:
    """What `Meter` is, for batches that come with their labels."""

    unread = ()

    def __init__(self, batches):
        self._batches = batches

    def measure(self, model, classes, *, verbose=0):
        logits, labels = [], []
        for images, own, *_ in self._batches:
            numbers = own.numpy().argmax(1) if own.shape.rank == 2 else own.numpy()
            if not np.isin(numbers, range(len(classes))).all():
                raise UserError(_NO_CLASS.format("the held-out part"))
            found = model(keras.ops.convert_to_tensor(images.numpy(), "float32"), training=False)
            logits.append(keras.ops.convert_to_numpy(found))
            labels.append(numbers)
        if not logits:
            raise UserError("the held-out data is empty")
        return Evaluation("held out", classes, np.concatenate(logits), np.concatenate(labels).astype(int))
