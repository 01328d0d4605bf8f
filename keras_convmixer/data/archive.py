"""Archives of images, unpacked once into the cache. A stranger packed them: no member may leave its folder."""

import contextlib
import gzip
import hashlib
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
            device, or grows out of proportion.
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
    left = max(ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size)
    members = _zip_members if path.suffix.lower() == ".zip" else _tar_members
    try:
        with Progress(f"unpacking {path.name}") as progress, contextlib.closing(members(path)) as found:
            for name, content in found:
                target = _inside(folder, name)
                parent = target if content is None else target.parent
                if parent not in made:
                    parent.mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                if content is None or not is_image(target.name):
                    continue
                with target.open("wb") as file:
                    left -= _copied(content, file, left)
                if left <= 0:
                    raise UserError("it would unpack to more than a set of images can")
                progress.update()
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from None
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


def _tar_members(path):
    """Yields `(name, readable content)` of each file and `(name, None)` of each folder in a tar archive."""
    with path.open("rb") as file:
        mode = "r:gz" if file.read(2) == b"\x1f\x8b" else "r:"
    with tarfile.open(path, mode, tarinfo=_StrictHeader) as archive:
        for member in archive:
            if not (member.isfile() or member.isdir()):
                kind = "a link" if member.islnk() or member.issym() else "a device"
                raise UserError(f"{member.name!r} is {kind}; expected only files and folders")
            yield member.name, archive.extractfile(member) if member.isfile() else None
        # gzip compares its checksum at the very end
        while archive.fileobj.read(1 << 20):
            pass


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes an archive that was cut off, or has a damaged header, for one that ends there. Not so this."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _zip_members(path):
    """Yields the same of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{member.filename!r} is a link or a device; expected only files and folders")
            if member.flag_bits & 1:
                raise UserError("it is encrypted")
            if member.is_dir():
                yield member.filename, None
            else:
                with archive.open(member) as content:
                    yield member.filename, content


def _inside(folder, name):
    """Where a member goes. As on Windows, a backslash separates and a drive is absolute, wherever this runs."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        raise UserError(f"{name!r} would leave its folder")
    return folder.joinpath(*path.parts)
