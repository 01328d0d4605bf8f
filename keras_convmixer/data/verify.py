"""Every image is decoded once before it is trained on; the verdict is remembered."""

import hashlib
import json

import tensorflow as tf

from keras_convmixer import files
from keras_convmixer.data import decode
from keras_convmixer.data.progress import Progress
from keras_convmixer.data.unreadable import reason
from keras_convmixer.errors import UserError

MOST_CORRUPT = 0.01


def unreadable(root, listing):
    """Decodes the images that have not been decoded before and names those that cannot be.

    The verdict is kept in the cache, by a hash of the folder and of every file's name, size and time of change.

    Args:
        root: a folder. listing: its `File`s.

    Returns:
        A dictionary: name → reason, in one line.
    """
    digest = hashlib.sha256(repr((str(root.resolve()), listing)).encode("utf-8", "surrogateescape"))
    verdict = files.cache_dir() / "verified" / f"{digest.hexdigest()[:32]}.json"
    if verdict.exists():
        return json.loads(verdict.read_text(encoding="utf-8"))
    found = _decode_all(root, [file.name for file in listing])
    files.write_text(verdict, json.dumps(found, indent=1))
    return found


def check_share(name, found, count, allow_corrupt):
    """Raises ValueError if more than 1 % of `count` images cannot be read, or all of them."""
    if len(found) == count or (len(found) > MOST_CORRUPT * count and not allow_corrupt):
        some = "; ".join(f"{file}: {reason}" for file, reason in list(found.items())[:3])
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{name}: {len(found)} of {count} images cannot be read, more than {MOST_CORRUPT:.0%} "
            f"({some}{more}); repair or remove them, or set allow_corrupt"
        )


def _decode_all(root, names):
    paths = tf.constant([f"{root}/{name}" for name in names])

    def decoded(index):
        # The size is asked for so that the decoding is not optimised away.
        return index, tf.size(decode.decode(tf.io.read_file(tf.gather(paths, index))))

    images = tf.data.Dataset.range(len(names)).map(decoded, tf.data.AUTOTUNE, deterministic=False)
    missing = set(range(len(names)))
    with Progress("checking images", len(names)) as progress:
        for index, _ in images.ignore_errors().batch(256).as_numpy_iterator():
            missing.difference_update(index.tolist())
            progress.advance(len(index))
    return {names[i]: reason(lambda i=i: tf.io.read_file(paths[i])) for i in sorted(missing)}
