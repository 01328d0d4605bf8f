"""What TensorBoard shows of a training beside its figures: augmented images and depthwise kernels."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_convmixer.parts import parts
from keras_convmixer.training.checkpoint import Position
from keras_convmixer.training.progressive_resizing import pieces, resized
from keras_convmixer.visualize.kernels import depthwise_kernels
from keras_convmixer.visualize.tiles import grey, mosaic, signed, some

# TensorBoard itself shows no more images of a name, but a random choice of them.
_EPOCHS = 10
_IMAGES = 16
_KERNELS = 64


class Pictures(keras.callbacks.Callback):
    """Writes, after ten epochs of a training or fewer, evenly spaced, what TensorBoard's tab "Images" shows.

    That is the epoch's first training images as the model saw them, and kernels of the first and the last block,
    each scaled to its largest weight. Nothing is read from the training's own stream. To stand after `Checkpoints`,
    which gives the model its weights of the epoch.

    Args:
        folder: where the events are written.
        bundle: the `Bundle` that is saved at the end of an epoch.
        source: what the batches come from, see `training.sources`.
        training: the recipe's.
    """

    def __init__(self, folder, bundle, source, training):
        super().__init__()
        self.bundle = bundle
        self._writer = tf.summary.create_file_writer(str(folder))
        self._epochs = set(some(np.arange(training.epochs), _EPOCHS).tolist())
        self._pieces = pieces(training, bundle.preprocessing.input_size, Position([]))
        # To build it takes longer than to use it.
        self._first_images = functools.cache(lambda preprocessing: source.first_images(preprocessing, _IMAGES))

    def on_epoch_end(self, epoch, logs=None):
        if epoch not in self._epochs:
            return
        piece = next(piece for piece in self._pieces if epoch < piece.end)
        made = self._first_images(resized(self.bundle.preprocessing, piece))
        if made:
            self._write("augmented_images", mosaic(made(epoch) / 255), epoch)
        for block in sorted({0, len(parts(self.bundle.model).blocks) - 1}):
            kernels = some(depthwise_kernels(self.bundle.model, block), _KERNELS)
            self._write(f"depthwise_kernels/block_{block}", mosaic(grey(signed(kernels))), epoch)
        self._writer.flush()

    def _write(self, name, picture, epoch):
        """Writes a picture `(height, width, 3)`, black at 0 and white at 1."""
        with self._writer.as_default(step=epoch):
            tf.summary.image(name, (255 * picture.clip(0, 1)).round().astype(np.uint8)[None])
