"""TensorFlow Datasets as sources: prepared by TFDS, then read still encoded, at random access."""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_convmixer import files
from keras_convmixer.data.encoded_images import EncodedImages, in_memory, on_cpu
from keras_convmixer.errors import UserError, did_you_mean, first_line
from keras_convmixer.progress import Progress

SPLITS = ("train", "validation", "test")
MOST_IN_MEMORY = 4 * 2**30
# What data sets call the name of the file that an image came from.
_FILE_NAMES = ("file_name", "filename", "image/filename")
# Without both, TFDS would prepare what there is and never come back to the rest.
IMAGENET_FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def open_splits(name, most_in_memory=None):
    """Opens a data set by its TFDS name, downloading and preparing it first if need be.

    Args:
        name: "name", "name/config" or either with ":version". TFDS keeps its data in `TFDS_DATA_DIR`, by default
            ~/tensorflow_datasets.
        most_in_memory: a split with at most so many bytes of records is held in memory; of another one only the
            place of every record is kept, and images are read from the record files as they are asked for. Default:
            `MOST_IN_MEMORY`, or a quarter of the memory that is free where that is less.

    Returns:
        `(classes, openers)`: class names, and for "train", "validation" and "test", those there are, a function
        that gives its `EncodedImages`.

    Raises:
        ValueError: TFDS has no such data set, or it is not one of images with one label each.
        OSError: a download failed, or files that have to be downloaded by hand are not there.
    """
    builder = _builder(name)
    if most_in_memory is None:
        most_in_memory = min(MOST_IN_MEMORY, psutil.virtual_memory().available // 4)
    image, label = (_only_feature(builder, kind) for kind in (tfds.features.Image, tfds.features.ClassLabel))
    classes = tuple(builder.info.features[label].names or map(str, range(builder.info.features[label].num_classes)))
    _prepare(builder)
    splits = [split for split in SPLITS if split in builder.info.splits]
    if not splits:
        raise UserError(
            f"{name} has none of the splits {', '.join(SPLITS)}; it has {', '.join(builder.info.splits)}"
        )

    def opened(split):
        size = builder.info.splits[split].num_bytes
        read = _in_memory if size <= most_in_memory else _from_records
        return read(builder, split, image, label, classes)

    return classes, {split: functools.partial(opened, split) for split in splits}


def is_prepared(name):
    """Whether a data set is on this machine, ready to be read. Raises ValueError where TFDS has no such one."""
    return _builder(name).data_path.exists()


def _builder(name):
    try:
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        hint = did_you_mean(name.split("/")[0].split(":")[0].lower(), known, otherwise="see convmixer data --help")
        raise UserError(f"{name}: neither a path nor a data set of TensorFlow Datasets; {hint}") from None
    except (ValueError, AssertionError) as error:  # a configuration or a version that it has not
        raise UserError(f"{name}: {first_line(error)}") from error


def _only_feature(builder, kind):
    features = builder.info.features
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise UserError(
            f"{builder.name} has {len(names)} {kind.__name__} features among {', '.join(features)}; "
            "expected a classification data set, with one Image and one ClassLabel"
        )
    return names[0]


def _prepare(builder):
    if not builder.data_path.exists():
        _check_manual_files(builder)
    try:
        builder.download_and_prepare()
    except OSError:
        raise
    except ValueError as error:
        raise UserError(f"{builder.name}: {first_line(error)}") from error
    except Exception as error:  # TFDS has no common base for what goes wrong in downloading and extracting.
        raise OSError(
            f"{builder.name} could not be prepared: {type(error).__name__}: {first_line(error)}"
        ) from error


def _check_manual_files(builder):
    """Some data sets TFDS may not download; a person has to. Says which files, and where they belong."""
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return
    place = Path(builder.data_dir_root) / "downloads" / "manual"
    if builder.name == "imagenet2012":
        missing = [name for name in IMAGENET_FILES if not (place / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"imagenet2012: {' and '.join(missing)} not found in {place}; "
                "register at https://image-net.org/download-images, download and put them there, not unpacked"
            )
    elif not place.is_dir() or not any(place.iterdir()):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise FileNotFoundError(f"{builder.name} has to be downloaded by hand into {place}: {instructions}")


def _in_memory(builder, split, image, label, classes):
    wanted = dict.fromkeys((image, label, *_file_name(builder)), True)
    wanted = tfds.decode.PartialDecoding(wanted, {image: tfds.decode.SkipDecoding()})
    # One file after another: TFDS's own order, which does not depend on the machine.
    order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    examples = builder.as_dataset(split=split, decoders=wanted, read_config=order, shuffle_files=False)
    encoded, labels, names = [], [], []
    with Progress(f"reading {builder.name} {split}", builder.info.splits[split].num_examples) as progress:
        for batch in examples.batch(1024):
            encoded.append(batch[image])
            labels.append(batch[label].numpy())
            names += [name for feature in _file_name(builder) for name in batch[feature].numpy()]
            progress.update(len(labels[-1]))
    labels = np.concatenate(labels)
    _check_labels(builder, split, labels)
    return in_memory(classes, labels, _names(builder, split, len(labels), names), tf.concat(encoded, axis=0))


def _from_records(builder, split, image, label, classes):
    if builder.info.file_format.value != "tfrecord":
        raise UserError(f"{builder.name} is stored as {builder.info.file_format.value}; expected tfrecord files")
    paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
    index = _record_index(builder, split, label, paths)
    _check_labels(builder, split, index["labels"])
    shard, start, length = (on_cpu(index[key]) for key in ("shard", "start", "length"))

    def read(shard, start, length):
        with tf.io.gfile.GFile(paths[shard], "rb") as file:
            file.seek(int(start))
            return file.read(int(length))

    def encoded(position):
        place = [tf.gather(values, position) for values in (shard, start, length)]
        record = tf.ensure_shape(tf.numpy_function(read, place, tf.string), ())
        return tf.io.parse_single_example(record, {image: tf.io.FixedLenFeature([], tf.string)})[image]

    names = _names(builder, split, len(index["labels"]), index["names"])
    return EncodedImages(classes, index["labels"], names, encoded)


def _record_index(builder, split, label, paths):
    """For each record its label, shard, first byte, length and, if it has one, file name.

    Made in one pass over the files, then cached.
    """
    stamps = [(path, (status := os.stat(path)).st_size, status.st_mtime_ns) for path in paths]
    features = (label, *_file_name(builder))
    key = hashlib.sha256(repr((stamps, features)).encode()).hexdigest()[:32]
    cached = files.cache_dir() / "tfds" / f"{builder.name}-{split}-{key}.npz"
    if cached.exists():
        with np.load(cached) as arrays:
            return dict(arrays)
    shards = []
    with Progress(f"indexing {builder.name} {split}", builder.info.splits[split].num_examples) as progress:
        for number, path in enumerate(paths):
            shards.append(_shard_index(number, path, *features))
            progress.update(len(shards[-1]["labels"]))
    index = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    with files.replacing(cached) as temporary:
        np.savez(temporary, **index)
    return index


def _shard_index(number, path, label, file_name=None):
    kinds = {label: tf.int64} | ({file_name: tf.string} if file_name else {})
    kinds = {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}

    def parsed(record):
        example = tf.io.parse_single_example(record, kinds)
        return example[label], tf.strings.length(record), example.get(file_name, "")

    records = tf.data.TFRecordDataset(path).map(parsed, tf.data.AUTOTUNE).batch(1024)
    columns = list(zip(*records.as_numpy_iterator())) or [[np.zeros(0, np.int64)]] * 3
    labels, length, names = map(np.concatenate, columns)
    length = length.astype(np.int64)
    # A record is framed by its length (8 bytes) and that one's checksum (4) before, its own checksum (4) after.
    start = np.cumsum(length + 16) - length - 4
    names = names.astype(bytes) if file_name else names[:0].astype(bytes)
    return {
        "labels": labels,
        "shard": np.full(len(labels), number),
        "start": start,
        "length": length,
        "names": names,
    }


def _check_labels(builder, split, labels):
    if not len(labels) or labels.min() < 0:
        raise UserError(f"the split {split!r} of {builder.name} has no labels")


def _file_name(builder):
    """The feature that holds the name of an image's file, as a list of one, or of none."""
    known = dict(builder.info.features.items())
    return [name for name in _FILE_NAMES if isinstance(known.get(name), tfds.features.Text)][:1]


def _names(builder, split, count, file_names):
    """What to call each image: by its file, where the data set knows it, else by its number."""
    own = [name.decode(errors="replace") for name in file_names] or range(count)
    return tuple(f"{builder.name}/{split}/{name}" for name in own)
