"""Image files as Pillow reads them: all that TensorFlow does not, and with more words where one is damaged.

HEIC, the format of many a phone's photographs, is read where the extra `heif` is installed.
"""

import contextlib
import io
import math

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from keras_convmixer.errors import UserError

# Pillow's own limit, a quarter of a GiB as RGB. A few kilobytes of PNG can claim far more.
MAX_PIXELS = 89_478_485
TOO_LARGE = f"an image of more than {MAX_PIXELS:,} pixels"
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")
UNKNOWN = "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"
HEIF_MISSING = 'HEIC images need pillow_heif: python -m pip install "keras_convmixer[heif]"'
# how such a file names what it is, after its first box's length
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def readable():
    """The formats that can be read here."""
    return FORMATS if _reads_heif() else FORMATS[:-1]


@contextlib.contextmanager
def opened(content, formats=FORMATS):
    """A context with Pillow's image of a file's content, not yet decoded.

    Raises:
        UserError: it is of none of these formats, too large, or HEIC without the extra. Whatever Pillow's parts
            raise on a damaged file.
    """
    formats = [name for name in formats if name in readable()]
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError:
        raise UserError(TOO_LARGE) from None
    except UnidentifiedImageError:
        is_heif = content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS
        of_heif = "Invalid HEIC: damaged" if "HEIF" in formats else HEIF_MISSING
        raise UserError(of_heif if is_heif else UNKNOWN) from None
    with image:
        if max(image.width * image.height, _pixels_of_a_tile(image)) > MAX_PIXELS:
            raise UserError(TOO_LARGE)
        yield image


def rgb(image):
    """The first picture of an opened image, turned as its EXIF orientation asks: uint8 `(height, width, 3)`.

    Of 16 bits the upper eight are taken, as of a PNG.
    """
    if image.mode in ("I", "F"):
        raise UserError("its numbers have 32 bits: save it with 8 or 16 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def _reads_heif():
    try:
        import pillow_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()
    return True


def _pixels_of_a_tile(image):
    """A TIFF is decoded in tiles, which may claim to be larger than the image."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
    return math.prod(sides) if all(isinstance(side, int) for side in sides) else 0
