import functools
import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_convmixer.data import decode
from keras_convmixer.data.random_crop import random_resized_crop
from keras_convmixer.data.unreadable import reason
from keras_convmixer.preprocessing import Preprocessing

ORIENTATION = 0x0112
pillow_heif.register_heif_opener()


def picture(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 127 + 120 * np.sin((x + 2 * y) / 9)], -1).astype(np.uint8)


def encode(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@functools.cache
@functools.cache  # so that it is traced once
def graph(function, **options):
    return tf.function(functools.partial(function, **options))


def decoded(encoded):
    return graph(decode.decode)(tf.constant(encoded)).numpy()


LOSSLESS = [
    *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")],
    *[("BMP", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1")],
    ("GIF", "P", {}),
    ("GIF", "L", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"lossless": True}),
    *[("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1", "CMYK")],
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("AVIF", "RGB", {}),
    ("HEIF", "RGB", {}),
]


@pytest.mark.parametrize("kind, mode, options", LOSSLESS)
def test_lossless_formats_give_pillows_pixels(kind, mode, options):
    encoded = encode(Image.fromarray(picture()).convert(mode), kind, **options)
    pixels = decoded(encoded)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, pillow(encoded))


@pytest.mark.parametrize("mode, options", [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})])
def test_jpegs_are_within_one_level_of_pillow(mode, options):
    encoded = encode(Image.fromarray(picture()).convert(mode), "JPEG", quality=95, **options)
    difference = decoded(encoded).astype(int) - pillow(encoded)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_the_upper_eight(kind):
    levels = (np.arange(40 * 60).reshape(40, 60) * 27).astype(np.uint16)
    pixels = decoded(encode(levels, kind))
    np.testing.assert_array_equal(pixels, np.repeat((levels >> 8)[..., None], 3, axis=-1))


def test_an_animated_gif_gives_its_first_frame():
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert set(np.unique(decoded(encoded))) == {10}


def exif(orientation, order=">"):
    entry = struct.pack(f"{order}HHIHH", ORIENTATION, 3, 1, orientation, 0)
    mark = b"MM" if order == ">" else b"II"
    return b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def turned(pixels, orientation):
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind, order", [("JPEG", ">"), ("JPEG", "<"), ("PNG", "<"), ("WEBP", ">"), ("AVIF", ">"), ("HEIF", ">")]
)
def test_exif_orientation_is_followed(kind, order, orientation):
    options = {"lossless": True} if kind == "WEBP" else {}
    upright = decoded(encode(picture(), kind, **options))
    encoded = encode(picture(), kind, exif=exif(orientation, order), **options)
    np.testing.assert_array_equal(decoded(encoded), turned(upright, orientation))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_called_eagerly_it_gives_the_same(kind):
    encoded = encode(picture(), kind, **({} if kind == "GIF" else {"exif": exif(6)}))
    np.testing.assert_array_equal(decode.decode(tf.constant(encoded)), decoded(encoded))


@pytest.mark.parametrize("broken", [exif(6)[:10], exif(6)[:-9], b"Exif\0\0nonsense", exif(0), exif(99)])
def test_an_orientation_that_makes_no_sense_is_ignored(broken):
    expected = decoded(encode(picture(), "JPEG"))
    np.testing.assert_array_equal(decoded(encode(picture(), "JPEG", exif=broken)), expected)


def claiming(height, width):
    """A small JPEG that says it is larger than it is."""
    encoded = encode(picture(), "JPEG")
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", height, width) + encoded[at + 4 :]


def truncated(kind):
    encoded = encode(picture(), kind)
    return encoded[: len(encoded) // 2]


def tiled_tiff(side, tile):
    """A small TIFF in one tile, which may say that it is larger than the image."""
    content = zlib.compress(bytes(10**6))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 134, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


BMP = encode(picture(), "BMP")
NO_IMAGES = {
    "nothing": (b"", "an empty file"),
    "web page": (
        b"<!DOCTYPE html><html><body>404</body></html>",
        "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image",
    ),
    "ICO": (encode(picture(), "ICO"), "not a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"),
    "start of a JPEG": (b"\xff\xd8\xff", "Invalid JPEG"),
    "start of a PNG": (b"\x89PNG\r\n\x1a\n", "Invalid PNG"),
    "half a JPEG": (truncated("JPEG"), "Invalid JPEG"),
    "half a PNG": (truncated("PNG"), "Invalid PNG"),
    "half a GIF": (truncated("GIF"), "truncated"),
    "half a TIFF": (truncated("TIFF"), "TIFF"),
    "half an AVIF": (truncated("AVIF"), "AVIF"),
    "half a HEIC": (truncated("HEIF"), "Invalid HEIC"),
    "float TIFF": (encode(Image.new("F", (9, 9)), "TIFF"), "its numbers have 32 bits"),
    "huge TIFF": (
        encode(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4"),
        "more than 89,478,485 pixels",
    ),
    "huge tile in a TIFF": (tiled_tiff(8, tile=30_000), "more than 89,478,485 pixels"),
    "half a BMP": (truncated("BMP"), "truncated"),
    "half a WebP": (truncated("WEBP"), "could not create decoder object"),
    "huge PNG": (encode(Image.new("1", (20_000, 20_000)), "PNG"), "more than 89,478,485 pixels"),
    "huge JPEG": (claiming(20_000, 20_000), "more than 89,478,485 pixels"),
    "huge BMP": (BMP[:18] + struct.pack("<ii", 20_000, 20_000) + BMP[26:], "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_an_invalid_argument_with_a_reason_in_one_line(name):
    encoded, words = NO_IMAGES[name]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode(tf.constant(encoded))
    why = reason(lambda: encoded)
    assert words in why
    assert len(why) < 100
    assert not set("\n{}[]'") & set(why)


def test_what_can_be_read_after_all_is_not_called_damaged():
    assert reason(lambda: encode(picture(), "JPEG")) == "could be read only at the second try"


@pytest.mark.parametrize(
    "function",
    [decode.decode, lambda encoded: random_resized_crop(encoded, (0, 0), (40, 60))],
    ids=["decode", "random_resized_crop"],
)
def test_so_it_is_in_a_pipeline_where_the_next_image_comes_then(function):
    encoded = [content for content, _ in NO_IMAGES.values()]
    images = tf.data.Dataset.from_tensor_slices([*encoded, encode(picture(), "PNG")])
    iterator = iter(images.map(function, 2))
    for _ in encoded:
        with pytest.raises(tf.errors.InvalidArgumentError):
            next(iterator)
    assert next(iterator).shape == (40, 60, 3)


def test_evaluation_matches_timm(imagenet_samples, oracles):
    import tarfile

    expected = np.load(oracles / "preprocessing" / "timm_eval_224_crop096_bicubic.npz")
    with tarfile.open(imagenet_samples) as archive:
        encoded = [archive.extractfile(f"images/{name}").read() for name in expected["files"]]
    crop = tf.function(lambda image: decode.evaluation_image(image, Preprocessing((224, 224), 0.96, "bicubic")))
    ours = np.stack([crop(tf.constant(image)) for image in encoded])
    difference = np.abs(ours - expected["uint8_nhwc"])
    assert ours.dtype == np.float32
    assert np.mean(difference <= 1) >= 0.999
    assert np.mean(difference) <= 0.2


def torchvision_crop(image, size, crop, resample):
    """What torchvision's Resize and CenterCrop do to a square input size, in Pillow."""
    short = int(np.floor(size / crop))
    height, width = image.shape[:2]
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    left, top = (round((side - size) / 2) for side in resized)
    whole = Image.fromarray(image).resize(resized, resample)
    return np.asarray(whole.crop((left, top, left + size, top + size)), np.float32)


@tf.function(reduce_retracing=True)
def bicubic_crop(image):
    return decode.evaluation_crop(image, Preprocessing((24, 24), 0.8, "bicubic"))


@settings(max_examples=40)
@given(st.integers(5, 130), st.integers(5, 130))
def test_any_size_is_resized_and_cropped_as_torchvision_does(height, width):
    image = picture(height, width)
    expected = torchvision_crop(image, 24, 0.8, Image.BICUBIC)
    assert np.abs(bicubic_crop(image) - expected).max() <= 2


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_an_image_of_the_right_size_is_left_alone(interpolation):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    crop = decode.evaluation_image(tf.constant(encode(noise, "PNG")), Preprocessing((32, 32), 1.0, interpolation))
    np.testing.assert_array_equal(crop, noise)


def test_nearest_takes_the_pixel_under_each_centre():
    image = picture(10, 30)
    crop = decode.evaluation_crop(image, Preprocessing((4, 4), 0.8, "nearest")).numpy()
    # resized to 5 × 15, a third of each side, of which 4 × 4 from row 0, column 6: half to even, as torchvision
    np.testing.assert_array_equal(crop, image[[1, 3, 5, 7]][:, [13, 15, 17, 19]])


def test_an_oblong_input_is_covered():
    white = np.full((50, 70, 3), 255, np.uint8)
    crop = decode.evaluation_crop(white, Preprocessing((30, 20), 0.9, "bilinear")).numpy()
    assert crop.shape == (30, 20, 3)
    assert crop.min() == 255
