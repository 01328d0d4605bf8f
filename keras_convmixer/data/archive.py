"""Archives of images, unpacked once into the cache. A stranger packed them: no member may leave its folder."""

import contextlib
import functools
import gzip
import hashlib
import lzma
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

# Images hardly compress. What grows beyond this is made to fill the disk.
MOST_GROWTH = 50
ALWAYS_ALLOWED = 2**30
DISK_BLOCK = 4096
# More than any set of images has.
MOST_FOLDERS, DEEPEST = 100_000, 100
# Bytes of a tar's extended header, which is read whole into memory: names are at most a few thousand long.
LONGEST_HEADER = 2**20
TOO_LARGE = "it would unpack to more than a set of images can"


def is_archive(path):
    """Whether a file's name says that it is an archive this module reads."""
    return str(path).lower().endswith(SUFFIXES)


def unpack(path):
    """Unpacks the images of an archive into the cache, unless that was done before, and returns their folder.

    Only folders and files with an image suffix are written. The cache remembers an archive by its path, size and
    time of change, and what suffixes images had; what it holds is whole or not there, also where two processes ask
    for the same at once.

    Args:
        path: a `.tar`, `.tar.gz`, `.tgz` or `.zip` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive is damaged, encrypted, has a member that would leave its folder, a link or a
            device, or more or deeper folders than images need, or grows out of proportion.
        OSError: it cannot be read, or the disk is full.
    """
    path = Path(path).resolve()
    status = path.stat()
    known_by = (str(path), status.st_size, status.st_mtime_ns, IMAGE_SUFFIXES)
    key = hashlib.sha256(repr(known_by).encode()).hexdigest()[:16]
    room = files.cache_dir() / "archives" / key
    unpacked = room / "images"
    if not unpacked.is_dir():
        room.mkdir(parents=True, exist_ok=True)
        with files.locked(room / "lock"):
            # Only a process that was killed leaves these behind, for nobody else writes here now.
            for abandoned in room.glob(".writing-*"):
                shutil.rmtree(abandoned)
            if not unpacked.is_dir():
                with files.replacing(unpacked) as temporary:
                    _unpack(path, temporary)
    return unpacked


def _unpack(path, folder):
    folder.mkdir()
    made = {folder}
    left = most = max(ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size)
    members = _zip_members if path.suffix.lower() == ".zip" else _tar_members
    try:
        with Progress(f"unpacking {path.name}") as progress, contextlib.closing(members(path, most)) as found:
            for name, content in found:
                target = _inside(folder, name)
                parent = target if content is None else target.parent
                if parent not in made:
                    parent.mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                if len(made) > MOST_FOLDERS:
                    raise UserError(f"it has more than {MOST_FOLDERS:,} folders")
                if content is None or not is_image(target.name):
                    continue
                with target.open("wb") as file, content() as opened:
                    left -= _copied(opened, file, left)
                if left <= 0:
                    raise UserError(TOO_LARGE)
                progress.update()
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from None
    except RecursionError:  # tarfile goes one deeper for each extended header on top of another
        raise UserError(f"{path} is damaged: it has extended headers of extended headers") from None
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from None
    except OSError as error:
        raise OSError(f"{path} cannot be unpacked: {error}") from error


def _copied(content, file, most):
    """Copies at most about `most` bytes; returns how much room the file takes."""
    size = 0
    while size < most and (part := content.read(1 << 20)):
        file.write(part)
        size += len(part)
    return max(size, DISK_BLOCK)


def _tar_members(path, most):
    """Yields `(name, what opens its content)` of each file and `(name, None)` of each folder in a tar archive."""
    with path.open("rb") as file:
        mode = "r:gz" if file.read(2) == b"\x1f\x8b" else "r:"
    with tarfile.open(path, mode, tarinfo=_StrictHeader) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # it would keep them all
            most -= member.size  # what is no image is read over, which takes its time
            if most < 0:
                raise UserError(TOO_LARGE)
            if member.issparse() or not (member.isfile() or member.isdir()):
                link, hole = member.islnk() or member.issym(), member.issparse()
                kind = "a link" if link else "a sparse file" if hole else "a device"
                raise UserError(f"{member.name!r} is {kind}; expected only files and folders")
            yield member.name, functools.partial(archive.extractfile, member) if member.isfile() else None
        # gzip compares its checksum at the very end
        while archive.fileobj.read(1 << 20):
            pass


# Members that are a header of the next.
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes an archive that was cut off, or has a damaged header, for one that ends there. Not so this.

    Nor does it read headers that are longer than any, or made for files with holes.
    """

    @classmethod
    def frombuf(cls, *arguments):
        header = super().frombuf(*arguments)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        if header.type in _EXTENDED and header.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {header.size:,} bytes")
        return header

    def _proc_gnusparse_10(self, *_):
        raise tarfile.ReadError("a sparse file")

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _zip_members(path, _):
    """Yields the same of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{member.filename!r} is a link or a device; expected only files and folders")
            if member.flag_bits & 1:
                raise UserError("it is encrypted")
            yield member.filename, None if member.is_dir() else functools.partial(archive.open, member)


def _inside(folder, name):
    """Where a member goes. As on Windows, a backslash separates and a drive is absolute, wherever this runs."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        raise UserError(f"{name!r} would leave its folder")
    if len(path.parts) > DEEPEST:
        raise UserError(f"{name[:40]!r}... lies more than {DEEPEST} folders deep")
    return folder.joinpath(*path.parts)
