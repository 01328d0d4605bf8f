"""The image files that paths, folders, patterns, addresses and "-" stand for."""

import glob
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from keras_convmixer import files
from keras_convmixer.data import image_folder
from keras_convmixer.errors import one_line
from keras_convmixer.weights.download import MOST_REDIRECTS, is_loopback, why

# of an image that comes from an address or from stdin, and the seconds that an address may take in all
MOST_BYTES = 64 * 2**20
MOST_SECONDS = 60
TIMEOUT = 10


class ImageFile(NamedTuple):
    """An image file to look at.

    Attributes:
        name: what to call it: its path, its address or "-". path: where it lies. error: why it does not, or None.
    """

    name: Path | str
    path: Path | None
    error: str | None = None


def find_images(paths, room):
    """The files that are asked for, each once, sorted within a folder or pattern.

    Args:
        paths: each a file, a folder (searched with all that is below it for image files), a pattern with `*`, `?`,
            `[...]` or `**`, an http:// or https:// address, or "-", an image on stdin. `~` is the user's home.
        room: a folder for what does not lie in a file of its own.

    Returns:
        A list of `ImageFile`. What is not there, or cannot be had, stands among them with its error.

    Raises:
        FileNotFoundError: nothing is there at any of the paths.
    """
    found, missing = [], []
    for path in dict.fromkeys(map(str, paths)):
        here = path != "-" and "://" not in path
        try:
            if here:
                found += [ImageFile(file, file) for file in _files_at(path)]
            else:
                found.append(ImageFile(path, _received(path, room / str(len(found)))))
        except OSError as error:
            missing += [error] if isinstance(error, FileNotFoundError) else []
            found.append(ImageFile(Path(path) if here else path, None, one_line(error).removeprefix(f"{path}: ")))
    if missing and len(missing) == len(found):
        raise missing[0]
    return list(dict.fromkeys(found))


def _files_at(path):
    place = files.expanded(path)
    if place.exists():
        places = [place]
    elif glob.has_magic(str(place)):
        # A shell would have done this, but Windows's does not.
        places = [Path(one) for one in sorted(glob.glob(str(place), recursive=True))]
    else:
        raise FileNotFoundError(f"{path}: no such file or folder")
    own = [file for place in places for file in (_images_in(place) if place.is_dir() else [place])]
    if not own:
        raise FileNotFoundError(f"{path}: no image file there ({', '.join(image_folder.SUFFIXES)})")
    return own


def _images_in(place):
    def refuse(error):
        raise error

    # Linked folders count, as they do in data to learn from; a folder that was seen does not count again.
    found, seen = [], set()
    for level, folders, names in os.walk(place, onerror=refuse, followlinks=True):
        real = os.path.realpath(level)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(level, name) for name in names if image_folder.is_image(name)]
    return sorted(found)


def _received(source, path):
    """Writes what an address or stdin gives to a file, and returns its path. Raises OSError."""
    with open(path, "wb") as file:
        size = 0
        for part in _of_stdin() if source == "-" else _of_address(source):
            size += len(part)
            if size > MOST_BYTES:
                raise OSError(f"{source}: more than {MOST_BYTES >> 20} MiB")
            file.write(part)
    return path


def _of_stdin():
    while part := sys.stdin.buffer.read(2**16):
        yield part


def _of_address(url):
    end = time.monotonic() + MOST_SECONDS
    try:
        with requests.Session() as session, _answer(session, url) as response:
            # What there is, however little: a server that sends a byte now and then is given up as well.
            while part := response.raw.read1(2**16):
                if time.monotonic() > end:
                    raise OSError(f"{url}: it took more than {MOST_SECONDS} seconds")
                yield part
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise OSError(f"{url}: {why(error, TIMEOUT)}") from None


def _answer(session, url):
    """The response with the file of an address, not yet read. Raises OSError."""
    address = url
    for _ in range(MOST_REDIRECTS + 1):
        if urlsplit(address).scheme not in ("http", "https"):
            raise OSError(f"{address}: only http and https addresses are read")
        session.trust_env = not is_loopback(address)
        # Redirects are not followed by requests, which reads whatever comes with one to its end.
        options = {"headers": {"Accept-Encoding": "identity"}, "allow_redirects": False}
        response = session.get(address, stream=True, timeout=TIMEOUT, **options)
        if response.status_code == 200:
            return response
        response.close()
        if not response.is_redirect:
            raise OSError(f"{url}: the server answered {response.status_code} {response.reason}")
        address = urljoin(address, response.headers["Location"])
    raise OSError(f"{url}: redirected more than {MOST_REDIRECTS} times")
