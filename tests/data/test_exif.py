import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_convmixer.data import decode, exif

MARKERS = {"JPEG": exif.JPEG_MARKER, "PNG": exif.PNG_MARKER}


def orientation(content, kind="JPEG"):
    return int(exif.orientation(tf.constant(content), MARKERS[kind]))


def image_file(kind, orientation, byte_order):
    tags = Image.Exif()
    tags.endian = byte_order
    tags[0x010F] = "a maker"
    tags[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=tags.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("kind", MARKERS)
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_images_are_turned_as_pillow_turns_them(kind, byte_order):
    decoded = tf.function(decode.decode_jpeg_or_png, input_signature=[tf.TensorSpec((), tf.string)])
    for asked in range(1, 9):
        content = image_file(kind, asked, byte_order)
        assert orientation(content, kind) == asked
        with Image.open(io.BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image), np.int16)
        assert np.abs(decoded(content).numpy() - expected).max() <= (1 if kind == "JPEG" else 0)


def test_an_orientation_that_is_none_is_upright():
    assert [orientation(image_file("JPEG", asked, "<")) for asked in (0, 9, 300)] == [1, 1, 1]


@given(st.binary(max_size=64), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_exif_is_never_an_error(rest, start):
    assert orientation(b"\xff\xd8\xff\xe1..Exif\0\0" + start + rest) in range(1, 9)
    assert orientation(b"\xff\xd8\xff" + rest) in range(1, 9)


@given(st.sampled_from(range(1, 9)), st.tuples(*[st.integers(1, 6)] * 2), st.data())
def test_a_part_of_the_upright_image_is_that_part_of_the_stored_one(asked, size, data):
    stored = np.arange(3 * size[0] * size[1], dtype=np.int32).reshape(*size, 3)
    asked = tf.constant(asked, tf.int64)
    whole = exif.upright(tf.constant(stored), asked).numpy()
    height, width = whole.shape[:2]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    box = tf.constant([top, left, rows, columns])
    assert tuple(exif.upright_size(tf.constant(size), asked).numpy()) == (height, width)
    y, x, h, w = exif.stored_box(box, tf.constant([height, width]), asked).numpy()
    part = exif.upright(tf.constant(stored[y : y + h, x : x + w]), asked).numpy()
    np.testing.assert_array_equal(part, whole[top : top + rows, left : left + columns])
    np.testing.assert_array_equal(exif.upright_box(tf.constant([y, x, h, w]), tf.constant(size), asked), box)
