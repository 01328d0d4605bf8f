"""Images that cannot be read: which they are, how many, and why.

One idea: a stream says of its images only which they are. Whatever goes wrong with one, it is left out, and the
positions that come out tell which are missing; only a training stream, in which another image takes its place, has
to tell of each that failed. Why one failed no stream says. Who wants to know has that one image read again, alone
and outside of any graph, and gets the reason in words of ours.
"""

import collections
import contextlib
import hashlib
import json
import sys
import threading
import warnings

import tensorflow as tf
from PIL import Image

from keras_convmixer import files
from keras_convmixer.data import decode, pillow_image
from keras_convmixer.errors import UserError, one_line, visible
from keras_convmixer.progress import Progress

MOST_UNREADABLE = 0.01
# How many images are tried for one place in a training batch before the data is taken for lost.
TRIES = 20
LOST = f"{TRIES} images in a row cannot be read: is the data still there?"


def reason(read):
    """Why an image could not be read, in one line; see `fault`."""
    return fault(read) or "could be read only at the second try"


def fault(read):
    """Why an image cannot be read, in one line; None if it can.

    Args:
        read: a function without arguments that gives the bytes of its file. It may raise OSError or
            tf.errors.OpError.
    """
    try:
        content = read()
    except tf.errors.NotFoundError:
        return "No such file or directory"
    except tf.errors.OpError as error:
        return f"its file cannot be read ({type(error).__name__})"
    except OSError as error:
        return error.strerror or one_line(error)
    try:
        decode.decode(tf.constant(content))
    except tf.errors.OpError:
        return _of_content(content)
    return None


def _of_content(content):
    """What Pillow, which has more words than TensorFlow, finds wrong with an image file."""
    if not content:
        return "an empty file"
    kind = next((name for name, start in decode.SIGNATURES.items() if content.startswith(start)), None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pillow_image.opened(content) as image:
                kind = image.format
                pillow_image.rgb(image)
    except UserError as error:
        unknown = str(error) == pillow_image.UNKNOWN
        return f"Invalid {kind}: damaged at its start" if unknown and kind else str(error)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over.
        return f"Invalid {kind or 'image'}: {one_line(error)}"
    return f"Invalid {kind}: damaged"


def reasons(images, indices):
    """`(name, reason)` of those of some `EncodedImages` that stand at these positions, in order."""

    def content(index):
        return images.encoded(tf.constant(index, tf.int64)).numpy()

    return tuple((images.names[i], reason(lambda i=i: content(i))) for i in sorted(indices))


def find_unreadable(root, listing):
    """Decodes all images of a folder once and names those that cannot be read.

    The verdict is kept in the cache, by a hash of the folder, of every file's name, size and time of change, and
    of the formats that can be read here. Those that it names are tried again each time: rights or a network that
    were mended change none of these.

    Args:
        root: a folder.
        listing: its `image_folder.File`s.

    Returns:
        A dictionary: name → reason, in one line.
    """
    known_by = repr((str(root.resolve()), listing, pillow_image.readable()))
    digest = hashlib.sha256(known_by.encode("utf-8", "surrogateescape"))
    verdict = files.cache_dir() / "verified" / f"{digest.hexdigest()[:32]}.json"
    if verdict.exists():
        again = {name: fault(_reading(root, name)) for name in json.loads(verdict.read_text(encoding="utf-8"))}
        return {name: why for name, why in again.items() if why}
    found = _decode_all(root, [file.name for file in listing])
    files.write_text(verdict, json.dumps(found, indent=1))
    return found


def _decode_all(root, names):
    paths = [f"{root}/{name}" for name in names]

    def decoded(index):
        content = tf.numpy_function(lambda i: files.read_regular(paths[i]), [index], tf.string)
        # The size is asked for so that the decoding is not optimised away.
        return index, tf.size(decode.decode(tf.ensure_shape(content, ())))

    images = tf.data.Dataset.range(len(names)).map(decoded, tf.data.AUTOTUNE, deterministic=False)
    missing = set(range(len(names)))
    with Progress("checking images", len(names)) as progress:
        for index, _ in images.ignore_errors().batch(256).as_numpy_iterator():
            missing.difference_update(index.tolist())
            progress.update(len(index))
    return {names[i]: reason(_reading(root, names[i])) for i in sorted(missing)}


def _reading(root, name):
    return lambda: files.read_regular(f"{root}/{name}")


def check_share(name, found, count, allow_corrupt):
    """Raises ValueError if more than 1 % of `count` images cannot be read, or all of them.

    Args:
        name: what to call the images.
        found: name → reason of those that cannot be read.
        count: how many there are in all.
        allow_corrupt: whether some may be, however many.
    """
    if len(found) == count or (len(found) > MOST_UNREADABLE * count and not allow_corrupt):
        some = "; ".join(f"{file}: {why}" for file, why in list(found.items())[:3])
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{name}: {len(found)} of {count} images cannot be read, more than {MOST_UNREADABLE:.0%} "
            f"({some}{more}); repair or remove them, or set data.allow_corrupt=true (evaluate: --allow-corrupt)"
        )


class Unreadable:
    """The count of a split's images that cannot be read, epoch by epoch.

    Each is named on stderr once, with the reason: those left out when the split was opened at once, the others when
    they are first met.

    Args:
        images: the split, `EncodedImages`. Those left out when it was opened count in every epoch.
    """

    def __init__(self, images):
        self._images = images
        self._epochs = collections.defaultdict(set)
        self._named = set()
        self._lock = threading.Lock()
        for name, why in images.skipped:
            _say(name, why)

    def count(self, epoch):
        """How many of the split's images could not be read in an epoch."""
        return len(self._images.skipped) + len(self._epochs[epoch])

    def noted_in(self, epoch):
        """The positions of the images that were noted in an epoch."""
        with self._lock:
            return sorted(self._epochs[epoch])

    def note(self, epoch, index):
        """Counts the image at a position of the split, and names it unless that was done before."""
        with self._lock:
            new = index not in self._named
            self._named.add(index)
            self._epochs[epoch].add(index)
        if new:
            _say(*reasons(self._images, [index])[0])

    def noted(self, epoch, index):
        """The same as an operation in a graph."""
        return tf.numpy_function(lambda epoch, index: self.note(int(epoch), int(index)), [epoch, index], [])


def _say(name, why):
    # In one piece, end of line included: several threads read images, and `print` writes the end apart.
    sys.stderr.write(visible(f"cannot be read: {name}: {why}") + "\n")
    sys.stderr.flush()


def first_readable(make, candidates, failed=None):
    """What a graph function makes of the first image that it does not fail for.

    Args:
        make: from an image's index, int64, to tensors.
        candidates: int64 `(TRIES,)`, the indices of the images to try, one after another.
        failed: from the index of an image that cannot be read to an operation that tells of it, or None.

    Returns:
        What `make` gives. It raises tf.errors.InvalidArgumentError, saying `LOST`, if all of them fail.
    """

    def attempt(number):
        before = tf.cond(number > 0, lambda: failed(candidates[number - 1]), tf.no_op) if failed else tf.no_op()
        with tf.control_dependencies([before]):
            return make(candidates[number])

    def lost(number):
        with tf.control_dependencies([tf.debugging.Assert(number < TRIES, [LOST])]):
            return make(candidates[0])

    attempts = tf.data.Dataset.range(TRIES).map(attempt).ignore_errors()
    end = tf.data.Dataset.range(TRIES, TRIES + 1).map(lost)
    return attempts.concatenate(end).take(1).get_single_element()


@contextlib.contextmanager
def stream_in_use():
    """A context, or a decorator, for Keras's use of streams that may lack images.

    Raises:
        OSError: one image after another cannot be read.
    """
    with warnings.catch_warnings():
        # Keras's, at the end of any stream that does not know its length. These depend on what can be read.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if LOST not in error.message:
                raise
            raise OSError(LOST) from None
