"""A split measured by several processes together, each image once."""

import math

import numpy as np

from keras_convmixer import class_names
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.data.unreadable import reasons
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation


class SharedMeter:
    """What `inference.meter.Meter` is, on several processes: each classifies its share on its own devices.

    They come together once, when all are done, with as many places for logits each: so that none waits for another
    in between, however many of its images cannot be read. Every process gets the same `Evaluation`.

    Args:
        images: the split. split: its name. preprocessing: of the models.
        batch_size: images at a time in each process, which its devices share.
        hosts: the `Hosts`.

    Attributes:
        unread: positions of the images that could not be read the last time.
    """

    def __init__(self, images, split, preprocessing, batch_size, hosts):
        import jax

        self.images, self.split, self.hosts = images, split, hosts
        self.unread = []
        devices = jax.local_device_count()
        self._size = math.ceil(batch_size / devices) * devices
        self._own = np.arange(hosts.index, len(images), hosts.count)
        self._places = math.ceil(len(images) / hosts.count)
        self._batches = evaluation_batches(images.subset(self._own), preprocessing, self._size)

    def measure(self, model, classes, *, verbose=0):
        """As `Meter.measure`."""
        positions = np.asarray(class_names.match(self.images.classes, classes))
        classify = _on_own_devices(model)
        logits = np.zeros((self._places, len(classes)), np.float32)
        read = np.zeros(self._places, bool)
        for pixels, places in self._batches.as_numpy_iterator():
            filled = np.zeros((self._size, *pixels.shape[1:]), np.float32)
            filled[: len(pixels)] = pixels
            logits[places], read[places] = classify(filled)[: len(pixels)], True
        # Place i of process p is image i * count + p.
        logits, read = (np.moveaxis(self.hosts.gathered(a), 0, 1) for a in (logits, read))
        count = len(self.images)
        logits, read = logits.reshape(-1, len(classes))[:count], read.reshape(-1)[:count]
        if not read.any():
            raise UserError(f"none of the {count} images of the split {self.split!r} can be read")
        self.unread, known = np.flatnonzero(~read).tolist(), np.flatnonzero(read)
        skipped = self.images.skipped + reasons(self.images, self.unread)
        names = tuple(self.images.names[i] for i in known)
        return Evaluation(
            self.split, classes, logits[known], positions[self.images.labels[known]], skipped, names=names
        )


def _on_own_devices(model):
    """A function of images to a model's logits, computed by this process alone, on copies of the variables."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    trained, others = model.trainable_variables, model.non_trainable_variables
    state = jax.device_put([[np.asarray(v.value) for v in group] for group in (trained, others)], everywhere)
    compute = jax.jit(lambda state, images: model.stateless_call(*state, images, training=False)[0])
    return lambda images: np.asarray(compute(state, jax.device_put(images, shared)))
