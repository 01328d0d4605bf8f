"""Archives of images, unpacked once into the cache. A stranger packed them: no member may leave its folder."""

import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from keras_convmixer import files
from keras_convmixer.data.image_folder import SUFFIXES as IMAGE_SUFFIXES
from keras_convmixer.data.image_folder import is_image
from keras_convmixer.errors import UserError
from keras_convmixer.progress import Progress

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

# Images hardly compress. What grows beyond this is made to fill the disk, or to take for ever.
MOST_GROWTH = 50
ALWAYS_ALLOWED = 2**30
# What a member counts for at least, be it written or not.
DISK_BLOCK = 4096
# More than any set of images has.
MOST_FOLDERS, DEEPEST = 100_000, 100
# Bytes of a tar's extended headers before one member. tarfile holds them, and names are a few thousand long.
LONGEST_HEADER = 2**20
# Such headers may hold for all members that follow, in which tarfile copies them to each. Git writes one.
MOST_GLOBAL_HEADERS = 32
# Bytes of a zip's list of members, of each of which zipfile makes an object; larger where the archive is.
ALWAYS_ALLOWED_LIST, LARGEST_LIST = 2**24, 1 / 4
TOO_LARGE = "it would unpack to more than a set of images can"


def is_archive(path):
    """Whether a file's name says that it is an archive this module reads."""
    return str(path).lower().endswith(SUFFIXES)


def unpack(path):
    """Unpacks the images of an archive into the cache, unless that was done before, and returns their folder.

    Only files with an image suffix are written, and the folders that they lie in. The cache remembers an archive by
    its path, size and time of change, and what suffixes images had; what it holds is whole or not there, also where
    two processes ask for the same at once.

    Args:
        path: a `.tar`, `.tar.gz`, `.tgz` or `.zip` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive is damaged, encrypted, has a member that would leave its folder, a link or a
            device, more or deeper folders than images need, or grows or has members out of proportion.
        OSError: it cannot be read, or the disk is full.
    """
    path = Path(path).resolve()
    status = path.stat()
    known_by = (str(path), status.st_size, status.st_mtime_ns, IMAGE_SUFFIXES)
    key = hashlib.sha256(repr(known_by).encode()).hexdigest()[:16]
    room = files.cache_dir() / "archives" / key
    unpacked = room / "images"
    if not unpacked.is_dir():
        with files.locked(room / "lock"):
            _clear_away(room)
            if not unpacked.is_dir():
                with files.replacing(unpacked) as temporary:
                    _unpack(path, temporary)
        for lock in room.parent.glob("*/lock"):
            # One that is held is of a folder that is being written.
            with contextlib.suppress(TimeoutError), files.locked(lock, wait=False):
                _clear_away(lock.parent)
    return unpacked


def _clear_away(room):
    """Removes what a process that was killed left behind, for whoever holds the lock is the only one to write."""
    for abandoned in room.glob(".writing-*"):
        shutil.rmtree(abandoned)


def _unpack(path, folder):
    folder.mkdir()
    made = {folder}
    left = most = max(ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size)
    members = _zip_members if path.suffix.lower() == ".zip" else _tar_members
    try:
        with Progress(f"unpacking {path.name}") as progress, contextlib.closing(members(path, most)) as found:
            for name, parts in found:
                target = _inside(folder, name)
                if parts is None or not is_image(target.name):
                    left -= DISK_BLOCK
                else:
                    _make(target.parent, made)
                    with target.open("wb") as file:
                        left -= _copied(parts, file, left)
                if left <= 0:
                    raise UserError(TOO_LARGE)
                progress.update()
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from None
    except RecursionError:  # tarfile goes one deeper for each extended header on top of another
        raise UserError(f"{path} is damaged: it has extended headers of extended headers") from None
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from None
    except OSError as error:
        # Without the name of the file, which can be as long as a header.
        raise OSError(f"{path} cannot be unpacked: {error.strerror or error}") from error


def _make(folder, made):
    """Makes a folder and those above it, unless they are in the set `made`, to which they are added."""
    new = list(itertools.takewhile(lambda one: one not in made, (folder, *folder.parents)))
    if len(made) + len(new) > MOST_FOLDERS:
        raise UserError(f"it has more than {MOST_FOLDERS:,} folders")
    for one in reversed(new):
        one.mkdir(exist_ok=True)
    made.update(new)


def _copied(parts, file, most):
    """Copies at most about `most` bytes; returns how much room the file takes."""
    size = 0
    for part in parts:
        file.write(part)
        size += len(part)
        if size >= most:
            break
    return max(size, DISK_BLOCK)


def _parts(opened):
    """The content of what `opened` opens, piece by piece. It is opened when it is first asked for."""
    with opened() as content:
        yield from iter(lambda: content.read(1 << 20), b"")


def _tar_members(path, most):
    """Yields `(name, parts of its content)` of each file and `(name, None)` of each folder in a tar archive."""
    with path.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with (
        opener(path, "rb") as file,
        _TarStream(file, most) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictHeader) as archive,
    ):
        while (member := stream.header(archive.next)) is not None:
            archive.members = []  # it would keep them all
            if len(archive.pax_headers) > MOST_GLOBAL_HEADERS:
                raise UserError(f"it has more than {MOST_GLOBAL_HEADERS} headers for all its members")
            if member.issparse() or not (member.isfile() or member.isdir()):
                link, hole = member.islnk() or member.issym(), member.issparse()
                kind = "a link" if link else "a sparse file" if hole else "a device"
                raise UserError(f"{_quoted(member.name)} is {kind}; expected only files and folders")
            content = functools.partial(archive.extractfile, member)
            yield member.name, _parts(content) if member.isfile() else None
        # gzip compares its checksum at the very end
        while stream.read(1 << 20):
            pass


class _TarStream(io.BufferedReader):
    """What tarfile reads. It believes whatever a header claims, and this does not.

    Args:
        file: the archive, unpacked as it is read. most: how many bytes may be read, or passed over.
    """

    def __init__(self, file, most):
        super().__init__(file)
        self._most, self._header_left = most, LONGEST_HEADER

    def header(self, read):
        """What `read` makes of the headers of one member."""
        self._header_left = LONGEST_HEADER
        member = read()
        self._header_left = None
        return member

    def read(self, size):
        self._check(self.tell())
        if self._header_left is None:
            return super().read(size)
        self._header_left -= size
        if self._header_left < 0:
            raise tarfile.ReadError(f"an extended header of {size:,} bytes, or too many of them")
        content = super().read(size)
        # On long runs of digits tarfile's regular expressions take for ever (CVE-2024-6232).
        if re.search(rb"\d{100}", content):
            raise tarfile.ReadError("an extended header with a number of more than 100 digits")
        return content

    def seek(self, position, whence=io.SEEK_SET):
        self._check(position)
        return super().seek(position, whence)

    def _check(self, position):
        if position > self._most:
            raise UserError(TOO_LARGE)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes an archive that was cut off, or has a damaged header, for one that ends there. Not so this.

    Nor does it take a size below 0, which would have tarfile read the same header again and again (CVE-2025-8194).
    """

    @classmethod
    def frombuf(cls, *arguments):
        return super().frombuf(*arguments)._checked()

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)._checked()
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    def _checked(self):
        if self.size < 0:
            raise tarfile.ReadError(f"a size of {self.size}")
        return self


def _zip_members(path, _):
    """Yields the same of a zip archive."""
    with _ZipStream(path) as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(
                    f"{_quoted(member.filename)} is a link or a device; expected only files and folders"
                )
            if member.flag_bits & 1:
                raise UserError("it is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Of bzip2 and LZMA zipfile unpacks at once whatever it has read, to a million times its size.
                name = zipfile.compressor_names.get(member.compress_type, "another method")
                raise UserError(f"it is compressed by {name}; expected deflate or none: pack it anew")
            content = functools.partial(archive.open, member)
            yield member.filename, None if member.is_dir() else _parts(content)


class _ZipStream(io.BufferedReader):
    """What zipfile reads, which asks for the whole list of members at once."""

    def __init__(self, path):
        super().__init__(io.FileIO(path))
        self._most = max(ALWAYS_ALLOWED_LIST, int(LARGEST_LIST * path.stat().st_size))

    def read(self, size=-1):
        if size is not None and size > self._most:
            raise UserError("the list of its members is longer than that of any set of images of its size")
        return super().read(size)


def _inside(folder, name):
    """Where a member goes. As on Windows, a backslash separates and a drive is absolute, wherever this runs."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        raise UserError(f"{_quoted(name)} would leave its folder")
    if len(path.parts) > DEEPEST:
        raise UserError(f"{_quoted(name)} lies more than {DEEPEST} folders deep")
    return folder.joinpath(*path.parts)


def _quoted(name):
    return f"{name[:80]!r}{'...' if len(name) > 80 else ''}"
