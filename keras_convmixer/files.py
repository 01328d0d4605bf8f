"""Files: read only where they are regular ones, written whole or not at all. And the cache folder."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from keras_convmixer.errors import UserError

# Bytes: half as much again as the largest image that is decoded takes without any compression.
LARGEST_IMAGE = 2**29


def read_regular(path, most=LARGEST_IMAGE):
    """The content of a regular file of at most `most` bytes.

    A FIFO would keep its reader waiting for ever, and some devices never end: what a path leads to is looked at
    once it is open, so that nothing can take its place in between, and opened without waiting.

    Raises:
        OSError: there is no such file, it cannot be read or is larger, or it is a folder, FIFO, device or socket.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path beside `path`, to write a file or a folder to; renames it to `path` at the end.

    Whatever fails on the way, what stood at `path` before still stands there and nothing temporary is left.
    The temporary name keeps the suffix, which some writers choose their format by.

    Args:
        path: the final path. Its folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    temporary = room / path.name
    try:
        yield temporary
        if temporary.is_dir():
            if path.is_dir():
                path.rename(room / "old")
            temporary.rename(path)
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            # mkdtemp's folder is private, a file written into it is not: only the rename is left to do.
            temporary.replace(path)
    finally:
        if (room / "old").exists() and not path.exists():
            (room / "old").rename(path)
        shutil.rmtree(room, ignore_errors=True)


def check_place(path):
    """Raises UserError where no file can be written to `path`: asked before long work, not after it.

    Its folder has to be there, and nothing but a regular file may stand in its place.
    """
    path = expanded(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: give the name of a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: the folder {path.parent} may not be written to")


def check_folder(path):
    """Raises UserError where no files can be written into a folder `path`, which need not be there yet."""
    path = expanded(path)
    standing = next(place for place in (path, *path.parents) if place.exists())
    if not standing.is_dir():
        raise UserError(f"{path} cannot be a folder: {standing} is none; give the name of a folder to write into")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written into: the folder {standing} may not be written to")


def locked(path, wait=True):
    """A context in which no other process holds the same lock file. It is let go of when a process ends.

    Args:
        path: the lock file. wait: whether to wait for a process that holds it, or else raise TimeoutError.
    """
    import filelock  # which takes longer than all that --help needs

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, timeout=-1 if wait else 0)


def sha256(path):
    """The SHA-256 sum of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path, text):
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def expanded(path):
    """A path with `~` as the user's home. `~someone` who is not known stays as it is, as in a shell."""
    return Path(os.path.expanduser(path))


def absolute(source):
    """What `--data` takes, so that it is found from any folder: what is no path, as a data set's name, stays.

    So does "digits", which is the name of these wherever there is a folder of that name.
    """
    path = expanded(source)
    return str(path.resolve()) if path.exists() and str(source) != "digits" else str(source)


def cache_dir():
    """Where unpacked archives and downloads are kept: $KERAS_CONVMIXER_CACHE, or the user's cache folder."""
    own = os.environ.get("KERAS_CONVMIXER_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras_convmixer"
