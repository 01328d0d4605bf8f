"""Where images come from: a folder, an archive, a TensorFlow Datasets name or scikit-learn's digits."""

import dataclasses
import functools
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_convmixer import class_names, files
from keras_convmixer.data import archive, image_folder
from keras_convmixer.data.encoded_images import EncodedImages, from_files, in_memory, printable
from keras_convmixer.data.stratified_split import stratified_split
from keras_convmixer.data.unreadable import check_share, find_unreadable
from keras_convmixer.errors import UserError

# a TFDS name: name, name/config, name/config:1.0.0
TFDS_NAME = re.compile(r"[A-Za-z0-9_]+(/[\w.+-]+)?(:[\w.*]+)?")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in splits.

    Attributes:
        name: what to call it: "digits", "cifar10", the name of a folder or archive.
        classes: class names, in the order of the labels.
        splits: "train", "validation", "test" → `EncodedImages`, those that there are, opened when they are first
            asked for. Where the source has no split to hold out and one was made here, there is "all" too.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, EncodedImages]

    def split(self, name):
        """The `EncodedImages` of a split. Raises ValueError, listing what there is, if it has no such split."""
        if name not in self.splits:
            raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def held_out_name(self):
        """The split that a model is judged by: "validation" if there is one, else "test". Raises ValueError."""
        for name in ("validation", "test"):
            if name in self.splits:
                return name
        raise UserError(
            f"{self.name} has no images to hold out: it has {', '.join(self.splits)}. "
            "Add a val or test folder, more images to each class, or a validation_fraction above 0"
        )

    def training(self):
        """The training images. Raises ValueError if there are none."""
        return self.split("train")

    def held_out(self):
        """The images of the split `held_out_name`."""
        return self.split(self.held_out_name)


def open_dataset(source, *, validation_fraction=0.2, seed=0, allow_corrupt=False):
    """Opens a data set.

    Args:
        source: "digits"; a folder or a `.tar`, `.tar.gz`, `.tgz` or `.zip` archive of images, laid out as
            `image_folder.read_folder` says; or, if no such path exists, the name of a TensorFlow Datasets data set,
            with its configuration and version if need be, as "imagenet2012" or "cats_vs_dogs:4.0.1".
        validation_fraction: where the source has only a training split, or none, the fraction of each class
            that is held out as validation.
        seed: of that split.
        allow_corrupt: whether more than 1 % of a folder's images may be unreadable. Up to that they are left
            out, and listed in `EncodedImages.skipped`.

    Returns:
        A `Dataset`.

    Raises:
        OSError: there is no such path, or it cannot be read, or a download failed.
        ValueError: what lies there is not such a data set; the message says what was expected.
    """
    if source is None:
        raise UserError(
            "data.source is null, as of a training on batches of the user's own, train(data=...): say with --data "
            "(in a recipe data.source, in Python data=) where images lie"
        )
    source = str(source)
    path = files.expanded(source)
    if source == "digits":
        classes, openers = _digits()
    elif path.is_dir() or (path.is_file() and archive.is_archive(path)):
        classes, openers = _folder(path, allow_corrupt)
    elif path.exists():
        raise UserError(f"{source}: expected a folder or an archive ({', '.join(archive.SUFFIXES)})")
    elif archive.is_archive(source) or not TFDS_NAME.fullmatch(source):
        raise FileNotFoundError(f"{source}: no such file or folder")
    else:
        from keras_convmixer.data import tfds

        classes, openers = tfds.open_splits(source)
    class_names.check(classes, source)
    if set(openers) in ({"all"}, {"train"}):
        (opener,) = openers.values()
        return Dataset(_name(source), classes, _divided(opener(), validation_fraction, seed))
    return Dataset(_name(source), classes, _Opened(openers))


def is_at_hand(source):
    """Whether a data set can be opened without downloading anything."""
    if source == "digits" or files.expanded(source).exists():
        return True
    if archive.is_archive(source) or not TFDS_NAME.fullmatch(source):
        return False
    from keras_convmixer.data import tfds

    return tfds.is_prepared(source)


def open_photographs(source, *, allow_corrupt=False):
    """Images that lie in a folder or an archive without classes, for what needs no labels.

    Returns:
        A `Dataset` of no classes with the split "all", whose labels say nothing; None of any other source.
    """
    path = files.expanded(source)
    if path.is_file() and archive.is_archive(path):
        path = archive.unpack(path)
    found = image_folder.unlabelled(path) if path.is_dir() and str(source) != "digits" else None
    if found is None:
        return None
    root, members = found
    readable, skipped = _readable(source, root, members, allow_corrupt)
    names = [file.name for file in readable]
    return Dataset(_name(source), (), {"all": from_files((), [0] * len(names), names, root, skipped)})


class _Opened(Mapping):
    """Split name → `EncodedImages`, each opened when it is first asked for."""

    def __init__(self, openers):
        self._openers = {name: functools.cache(opener) for name, opener in openers.items()}

    def __getitem__(self, name):
        return self._openers[name]()

    def __iter__(self):
        return iter(self._openers)

    def __len__(self):
        return len(self._openers)

    def __contains__(self, name):
        return name in self._openers


def _divided(images, fraction, seed):
    training, validation = stratified_split(images.labels, images.names, fraction, seed)
    splits = {"train": dataclasses.replace(images.subset(training), skipped=images.skipped), "all": images}
    if len(validation):
        splits["validation"] = images.subset(validation)
    return splits


def _folder(path, allow_corrupt):
    found = image_folder.read_folder(archive.unpack(path) if path.is_file() else path)

    def opened(split):
        members = dict(found.splits[split])
        readable, skipped = _readable(f"{path} ({split})", found.root, list(members), allow_corrupt)
        names, labels = zip(*((file.name, members[file]) for file in readable))
        if split in ("train", "all"):
            lost = sorted(set(range(len(found.classes))) - set(labels))
            if lost:
                raise UserError(f"{path} ({split}): no image of class {found.classes[lost[0]]} can be read")
        return from_files(found.classes, labels, names, found.root, skipped)

    return found.classes, {split: functools.partial(opened, split) for split in found.splits}


def _readable(name, root, members, allow_corrupt):
    """Those of some files that can be read, and (name, reason) of the others. ValueError if they are many."""
    corrupt = find_unreadable(root, members)
    skipped = {printable(name): why for name, why in corrupt.items()}
    check_share(name, skipped, len(members), allow_corrupt)
    return [file for file in members if file.name not in corrupt], tuple(skipped.items())


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    classes = tuple(str(name) for name in digits.target_names)
    names = [f"digits/{i}" for i in range(len(encoded))]
    return classes, {"all": lambda: in_memory(classes, digits.target, names, encoded)}


def _name(source):
    path = files.expanded(source)
    name = path.resolve().name if path.exists() else source
    for suffix in sorted(archive.SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
