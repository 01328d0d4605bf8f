"""What is drawn, and in which words."""

import io
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image
from scipy.special import softmax

import keras_convmixer
from keras_convmixer import visualize

DIGITS = Path(__file__).parent.parent.parent / "saved_models" / "digits"


@pytest.fixture(scope="module")
def model():
    return keras_convmixer.load(DIGITS).model


def texts(figure):
    return [text.get_text() for text in figure.texts]


def said(figure):
    return " ".join(texts(figure))


def shown(panel):
    return np.asarray(panel.images[0].get_array())


def test_the_kernels_shown_are_the_models(model):
    figure = visualize.plot_depthwise_kernels(model, [1, 3])
    assert texts(figure)[-2:] == ["block 1", "block 3"]
    for panel, block in zip(figure.axes, (1, 3), strict=True):
        sheet = shown(panel)
        gap = (len(sheet) - 8 * 40) // 7
        kernels = keras.ops.convert_to_numpy(model.get_layer(f"block_{block}_depthwise").kernel)
        for channel in (0, 9, 63):
            top, left = (i * (40 + gap) for i in divmod(channel, 8))
            kernel = kernels[..., channel, 0]
            found = sheet[top + 4 : top + 40 : 8, left + 4 : left + 40 : 8]
            expected = (kernel / np.abs(kernel).max() + 1) / 2
            np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, axis=-1), atol=1e-6)


def test_of_many_kernels_and_filters_some_are_shown(model):
    assert "All 64 kernels" in said(visualize.plot_depthwise_kernels(model, [0]))
    assert "9 of the 64 kernels" in said(visualize.plot_depthwise_kernels(model, [0], most=9))
    figure = visualize.plot_patch_embeddings(model, most=16)
    assert "16 of the 64 filters" in said(figure)
    first = visualize.patch_embeddings(model)[0, 0, 0]
    np.testing.assert_allclose(shown(figure.axes[0])[5, 5], (first / np.abs(first).max() + 1) / 2, atol=1e-6)


def test_a_caption_says_the_likeliest_class_and_its_probability(model, digit):
    probabilities = softmax(model.predict_on_batch(digit[None])[0])
    figure = visualize.plot_class_activation_maps(
        model, digit, classes=[f"no. {i}" for i in range(10)], name="a.png"
    )
    assert texts(figure)[0] == f"no. 2 ({100 * probabilities[2]:.1f} %)"
    assert texts(figure)[-5:] == ["a.png", "block 0", "block 1", "block 2", "block 3"]
    figure = visualize.plot_class_activation_maps(model, digit, class_index=7)
    assert texts(figure)[0] == f"class 2 ({100 * probabilities[2]:.1f} %)"
    assert f"speaks for class 7 ({100 * probabilities[7]:.1f} %)" in said(figure)


@pytest.mark.parametrize("index", [2, 7])
def test_red_speaks_for_a_class_and_blue_against_it(model, digit, index, caplog):
    figure = visualize.plot_class_activation_maps(model, digit, class_index=index, blocks=[0, 3])
    np.testing.assert_allclose(shown(figure.axes[0]), digit / 255, atol=1e-6)
    for panel, block in zip(figure.axes[1:], (0, 3), strict=True):
        values = visualize.class_activation_map(model, digit, index, block)
        clear = np.abs(values) > 0.05 * np.abs(values).max()
        red, _, blue = np.moveaxis(shown(panel), -1, 0)
        np.testing.assert_array_equal((red > blue)[clear], (values > 0)[clear])
    assert caplog.messages == []  # of colours that matplotlib has to cut


def test_feature_maps_are_those_that_vary_most(model, digit):
    figure = visualize.plot_feature_maps(model, digit, blocks=[2], most=4)
    channels = visualize.feature_maps(model, digit, 2)
    varied = channels[..., channels.std(axis=(0, 1)).argmax()]
    brightness = shown(figure.axes[1])[2:40:5, 2:40:5].sum(axis=-1)
    assert brightness.argmax() == varied.argmax()
    assert np.corrcoef(brightness.ravel(), varied.ravel())[0, 1] > 0.95


def test_the_receptive_fields_sides_are_named(model, digit):
    figure = visualize.plot_effective_receptive_field(model, [digit], blocks=[0, 3])
    assert "on average over 1 image;" in said(figure)
    field = visualize.effective_receptive_field(model, [digit], 0)
    (words,) = (text.get_text() for text in figure.axes[0].texts)
    sides = [visualize.side_holding(field, share, 1) for share in (0.5, 0.95)]
    assert words.split("\n") == [f"50 % in {sides[0]} px", f"95 % in {sides[1]} px", "theoretical 5 px"]
    assert "theoretical 17 px" in figure.axes[1].texts[0].get_text()
    # Two squares, and a third one where the theoretical field is smaller than the image.
    assert [len(panel.patches) for panel in figure.axes] == [3, 2]


def test_figures_are_opaque_and_leave_pyplot_alone(model, digit):
    before = dict(matplotlib.rcParams)
    figure = visualize.plot_feature_maps(model, digit, blocks=[0])
    file = io.BytesIO()
    figure.savefig(file, format="png")
    with Image.open(file) as image:
        assert image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_names_are_written_as_they_are_and_fit(model, digit):
    names = ["$x^2$ & 50%", "\x1b[31mred"] + ["a rather long name " * 20] + list("3456789")
    figure = visualize.plot_class_activation_maps(model, digit, classes=names, blocks=[3], name="$p$\x1b[2J" * 20)
    title, label = texts(figure)[0], texts(figure)[-2]
    assert title.startswith("a rather long name")
    assert title.endswith("...")
    assert label.startswith("$p$\\x1b[2J$p$")
    figure.draw_without_rendering()
    for text in figure.texts:
        assert text.get_window_extent().x1 < figure.bbox.x1
    figure = visualize.plot_class_activation_maps(model, digit, class_index=0, classes=names, blocks=[3])
    assert "$x^2$ & 50%" in said(figure)
    figure.savefig(io.BytesIO(), format="png")
    names[2:4] = ["cat, tabby", "n02124075"]
    figure = visualize.plot_class_activation_maps(model, digit, class_index=3, classes=names, blocks=[3])
    assert texts(figure)[0].startswith("cat, tabby (")
    assert "speaks for Egyptian cat (" in said(figure)


def test_a_name_is_drawn_in_a_font_that_has_it(model, digit, own_font):
    names = ["0", "1", "犬", *"3456789"]
    figure = visualize.plot_class_activation_maps(model, digit, classes=names, blocks=[3])
    assert texts(figure)[0].startswith("犬 (")
    assert figure.texts[0].get_fontproperties().get_file() == str(own_font)


def test_a_class_without_a_font_is_called_by_its_number(model, digit, no_such_font):
    figure = visualize.plot_class_activation_maps(model, digit, classes=["0", "1", "犬", *"3456789"], blocks=[3])
    assert texts(figure)[0].startswith("class 2 (")


def test_grey_images_and_many_blocks():
    model = keras_convmixer.ConvMixer(4, 6, 3, 2, input_shape=(10, 14, 1), num_classes=3)
    image = np.full((10, 14, 1), 51, "float32")
    figure = visualize.plot_class_activation_maps(model, image, blocks=range(6))
    assert len(figure.axes) == 7
    assert figure.axes[0].bbox.width == pytest.approx(1.4 * figure.axes[0].bbox.height)
    np.testing.assert_allclose(shown(figure.axes[0]), np.full((10, 14, 3), 0.2), atol=1e-6)
    filters = shown(visualize.plot_patch_embeddings(model).axes[0])
    assert (filters[..., 0] == filters[..., 1]).all()
    with pytest.raises(ValueError, match="no block 6: this model has 0 to 5"):
        visualize.plot_feature_maps(model, image, blocks=[0, 6])
    with pytest.raises(ValueError, match="none is given"):
        visualize.plot_depthwise_kernels(model, [])
