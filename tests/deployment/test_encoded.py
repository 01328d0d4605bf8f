import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convmixer.data import decode
from keras_convmixer.deployment import encoded


@pytest.fixture(scope="module")
def in_graph():
    return tf.function(encoded.decode, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.fixture(scope="module")
def reference():
    return tf.function(decode.decode, input_signature=[tf.TensorSpec((), tf.string)])


def image_file(kind, exif=None, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    image.save(file, kind, **({"exif": exif} if exif else {}))
    return file.getvalue()


def exif_data(orientation, byte_order="<"):
    exif = Image.Exif()
    exif.endian = byte_order
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_orientation_is_followed(in_graph, reference, kind, byte_order):
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        content = image_file(kind, exif_data(orientation, byte_order))
        got = in_graph(content).numpy()
        assert got.shape == ((20, 12, 3) if orientation in (5, 6, 7, 8) else (12, 20, 3))
        np.testing.assert_array_equal(got, reference(content))


@pytest.mark.parametrize(
    "kind, mode", [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P")]
)
def test_every_mode_becomes_rgb(in_graph, reference, kind, mode):
    content = image_file(kind, mode=mode)
    np.testing.assert_array_equal(in_graph(content), reference(content))


@pytest.mark.parametrize("cut", [0, 2, 8, 9, 14, 20, 26])
def test_exif_data_that_is_cut_off_or_no_exif_data(in_graph, reference, cut):
    whole = image_file("JPEG", exif_data(6))
    begin = whole.index(b"Exif\0\0") + 6
    damaged = whole[: begin + cut] + bytes(len(exif_data(6)) - 6 - cut) + whole[begin + len(exif_data(6)) - 6 :]
    assert len(damaged) == len(whole)
    np.testing.assert_array_equal(in_graph(damaged), reference(damaged))


@pytest.mark.parametrize("content", [b"", b"not an image", image_file("PNG")[:60], image_file("JPEG")[:40]])
def test_what_is_no_image_is_an_error(in_graph, content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_graph(content)
