"""Models measured on a split of images, each image once."""

import numpy as np
import tensorflow as tf

from keras_convmixer import class_names
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.unreadable import reasons, stream_in_use
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation


class Meter:
    """Measures models on the open `Images` of a split, which it reads anew each time.

    Args:
        images: the split. split: its name. preprocessing: of the models.
        batch_size: images at a time. It changes no figure.
        fill: make the last batch as large as the others, for replicas to share out. What fills it is not counted.

    Attributes:
        unread: positions of the images that could not be read the last time.
    """

    def __init__(self, images, split, preprocessing, batch_size=64, fill=False):
        self.images = images
        self.split = split
        self.unread = []
        self._read = set()
        self._batches = evaluation_batches(images, preprocessing, batch_size).map(self._alone)
        if fill:
            self._batches = self._batches.map(lambda batch: _filled(batch, batch_size))

    def _alone(self, pixels, indices):
        """The pixels, for Keras's `predict` keeps nothing else; of the indices a note is taken as they pass."""
        with tf.control_dependencies([tf.numpy_function(lambda i: self._read.update(i.tolist()), [indices], [])]):
            return tf.identity(pixels)

    @stream_in_use()
    def measure(self, model, classes, *, verbose=0):
        """Measures a model that gives logits of these classes. What cannot be read is listed in `skipped`.

        Raises:
            ValueError: the split has a class that the model lacks, or none of its images can be read.
        """
        positions = np.asarray(class_names.match(self.images.classes, classes))
        # Looked at before the first reading alone: it costs a start of the stream.
        if not self._read and next(iter(self._batches), None) is None:
            raise UserError(f"none of the {len(self.images)} images of the split {self.split!r} can be read")
        self._read.clear()
        logits = model.predict(self._batches, verbose=verbose)[: len(self._read)]
        self.unread = sorted(set(range(len(self.images))) - self._read)
        skipped = self.images.skipped + reasons(self.images, self.unread)
        read = sorted(self._read)
        images = self.images.subset(read)
        return Evaluation(
            self.split, classes, logits, positions[images.labels], skipped, names=images.names, images=images
        )


class WithMirrorImages:
    """A model that gives the mean of its logits of each image and of its mirror image (test-time augmentation)."""

    def __init__(self, model):
        self._model = model

    def predict(self, batches, verbose):
        # Beside each other in one batch, so that every image is read and decoded once.
        logits = self._model.predict(batches.map(_beside_mirror_images), verbose=verbose)
        return logits.reshape(-1, 2, logits.shape[-1]).mean(axis=1)


def _beside_mirror_images(images):
    return tf.reshape(tf.stack([images, tf.reverse(images, [2])], axis=1), (-1, *images.shape[1:]))


def _filled(batch, size):
    return tf.pad(batch, [[0, size - tf.shape(batch)[0]], [0, 0], [0, 0], [0, 0]])
