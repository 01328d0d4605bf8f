"""RandAugment: each operation against timm's own output, the tables, the draws."""

import json
import re

import keras_cv
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_convmixer.data.augment import RandAugment, policies

TIMM_FILL = (124.0, 116.0, 104.0)
# The oracle holds every sixth row and column, and the last.
KEPT = np.ix_(np.r_[0:224:6, 223], np.r_[0:224:6, 223])
EXACT = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")


@pytest.fixture(scope="module")
def timm(request):
    folder = request.config.rootpath / "tests" / "oracles" / "augment"
    with np.load(folder / "randaugment_ops.npz") as images:
        return dict(images), json.loads((folder / "randaugment_ops.json").read_text())["arguments"]


def table(policy):
    return {operation.name: operation for operation in policies.parse(policy).operations}


@pytest.mark.parametrize("name", table("rand-inc1"))
def test_an_operation_gives_timms_images(timm, name):
    images, arguments = timm
    operation = table("rand-inc1")[name]
    apply = tf.function(operation, reduce_retracing=True)
    keys = [key for key in images if re.match(rf"{name}(Increasing)?_m\d", key)]
    assert len(keys) >= 4
    for key in keys:
        source, magnitude = (
            "input_b" if "_b" in key.removesuffix("_bicubic") else "input",
            float(key.split("_m")[1][0]),
        )
        sign = 1.0 if "other_sign" in key else -1.0
        interpolation = "bicubic" if "bicubic" in key else "bilinear"
        image = tf.constant(images[source], tf.float32)
        found = apply(image, tf.constant(magnitude), tf.constant(sign), interpolation, TIMM_FILL).numpy()
        difference = np.abs(found[KEPT] - images[key])
        assert difference.max() <= (0 if name in EXACT else 1), key
        [argument] = arguments[re.sub(r"(_b)?(_bicubic)?$", "", key)] or [None]
        if argument is not None:
            own = operation.argument(tf.constant(magnitude), sign, 1)
            np.testing.assert_allclose(own, argument, rtol=1e-6)


def test_the_operations_that_do_not_increase_follow_timm():
    at = {name: float(op.argument(tf.constant(9.0), 1.0, 1)) for name, op in table("rand").items()}
    assert at["Posterize"] == 3
    assert at["Solarize"] == 230
    assert at["Color"] == at["Sharpness"] == pytest.approx(0.1 + 9 * 0.18)


def pillow(name, image, magnitude_12_on_32_pixels_sign):
    """torchvision 0.2x's RandAugment at magnitude 12 of 31 bins on a 32×32 Pillow image, op by op."""
    s = magnitude_12_on_32_pixels_sign
    affine = {
        "ShearX": (1, s * 0.12, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, s * 0.12, 1, 0),
        "TranslateX": (1, 0, s * 5, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, s * 5),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], fillcolor=(0, 0, 0))
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(1 + s * 0.36)
    return {
        "Identity": lambda: image,
        "Rotate": lambda: image.rotate(s * 12, fillcolor=(0, 0, 0)),
        "Posterize": lambda: ImageOps.posterize(image, 6),
        "Solarize": lambda: ImageOps.solarize(image, 153),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("name", table("torchvision"))
def test_the_cifar10_recipes_operations_give_pillows_images(timm, name):
    whole = timm[0]["input_b"]
    operation = table("torchvision-n2-m12")[name]
    for sign in (-1.0, 1.0):
        for top in (0, 96, 192):
            image = whole[top : top + 32, top : top + 32]
            expected = np.asarray(pillow(name, Image.fromarray(image), sign))
            found = operation(tf.constant(image, tf.float32), tf.constant(12.0), sign, "nearest", (0.0, 0.0, 0.0))
            # Pillow's double precision takes some of autocontrast's 255s for 254.99.
            np.testing.assert_allclose(found, expected, atol=1 if name == "AutoContrast" else 0)


@pytest.mark.parametrize("value", [0.0, 7.0, 255.0])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_plain_image_has_no_contrast_to_stretch(name, value):
    image = tf.fill((8, 9, 3), value)
    np.testing.assert_array_equal(table("rand")[name].function(image), image)


def test_torchvisions_table():
    assert " ".join(operation.name for operation in policies.TORCHVISION) == (
        "Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness Posterize Solarize"
        " AutoContrast Equalize"
    )
    strongest = {op.name: float(op.argument(tf.constant(30.0), 1.0, 331)) for op in policies.TORCHVISION}
    expected = {"ShearX": 0.3, "TranslateY": 150, "Rotate": 30, "Brightness": 1.9, "Posterize": 4, "Solarize": 0}
    assert {name: strongest[name] for name in expected} == pytest.approx(expected)


def test_a_string_is_parsed():
    policy = policies.parse("rand-n3-m7-mstd0.25-mmax8-p0.75-inc1")
    assert (policy.num_ops, policy.magnitude, policy.magnitude_std, policy.magnitude_max) == (3, 7, 0.25, 8)
    assert (policy.probability, policy.operations) == (0.75, policies.TIMM_INCREASING)
    assert policies.parse("rand-m9").operations == policies.TIMM
    assert policies.parse("rand-mstd101").magnitude_std == np.inf
    assert policies.parse("torchvision-n2-m12").probability == 1


@pytest.mark.parametrize(
    "text",
    ["", "augmix-m3", "rand-m", "rand-9", "rand-k3", "rand-m9-m8", "rand-w0", "rand-p1.5", "rand-n0", "rand-n1.5"]
    + ["rand-inc2", "torchvision-m31", "torchvision-m1.5", "torchvision-p0.5", "rand_m9", None],
)
def test_a_string_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        RandAugment(text)


@pytest.mark.parametrize("arguments", [{"interpolation": "lanczos"}, {"fill": (1, 2)}, {"fill": (0, 0, 256)}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        RandAugment(**arguments)


def draws(layer, count=4000):
    """The draws of `count` images, each entry `(count, num_ops)`."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([17, tf.cast(i, tf.int32)]))
    batch = next(iter(seeds.map(layer.draw).batch(count)))
    return {name: value.numpy() for name, value in batch.items()}


def test_the_draws_follow_the_imagenet_recipe():
    drawn = draws(RandAugment("rand-m9-mstd0.5-inc1"))
    count = drawn["operation"].size
    frequency = np.bincount(drawn["operation"].ravel(), minlength=15)
    assert len(frequency) == 15
    chi_square = ((frequency - count / 15) ** 2 / (count / 15)).sum()
    assert chi_square < 36.1  # 14 degrees of freedom, one in a thousand
    for name, odds in ("applied", 0.5), ("bicubic", 0.5):
        assert abs(drawn[name].mean() - odds) < 0.02, name
    assert abs(drawn["sign"].mean()) < 0.04
    assert abs(drawn["magnitude"].mean() - 9) < 0.03
    # N(9, 0.5) cut at 10, two standard deviations up.
    assert abs(drawn["magnitude"].std() - 0.49) < 0.02
    assert abs((drawn["magnitude"] == 10).mean() - 0.0228) < 0.007
    # The two operations of an image, and the draws of one operation, have nothing to do with each other.
    pairs = [(drawn[a][:, i], drawn[b][:, j]) for a in drawn for b in drawn for i in (0, 1) for j in (0, 1)]
    assert len(pairs) == 100
    distinct = [(a, b) for a, b in pairs if not np.array_equal(a, b)]
    assert len(distinct) == 90
    assert max(abs(np.corrcoef(a, b)[0, 1]) for a, b in distinct) < 0.06


def test_the_draws_follow_the_cifar10_recipe():
    drawn = draws(RandAugment("torchvision-n2-m12"))
    frequency = np.bincount(drawn["operation"].ravel(), minlength=14)
    expected = drawn["operation"].size / 14
    assert ((frequency - expected) ** 2 / expected).sum() < 34.5  # 13 degrees of freedom, one in a thousand
    assert drawn["applied"].all()
    assert (drawn["magnitude"] == 12).all()
    assert not drawn["bicubic"].any()


def test_a_standard_deviation_above_100_means_a_uniform_magnitude():
    magnitude = np.sort(draws(RandAugment("rand-m8-mstd101"))["magnitude"].ravel())
    assert np.abs(magnitude / 8 - np.linspace(0, 1, magnitude.size)).max() < 0.02


def test_a_probability_of_nought_changes_nothing_and_values_stay_whole(timm):
    image = tf.constant(timm[0]["input"][:48, :40], tf.float32)
    inputs = {"images": image, "seeds": tf.constant([3, 4])}
    np.testing.assert_array_equal(RandAugment("rand-p0")(inputs)["images"], image)
    out = RandAugment("rand-p1-n4-inc1")({**inputs, "images": image + 0.3})["images"].numpy()
    np.testing.assert_array_equal(out, np.clip(out.round(), 0, 255))


def test_only_what_is_drawn_is_applied(timm):
    """What the layer makes of an image is its draws' operations, one after the other."""
    image = tf.constant(timm[0]["input"][:40, :56], tf.float32)
    layer = RandAugment("rand-m9-mstd0.5-p1-inc1", interpolation="bilinear")
    seen = set()
    for i in range(12):
        seeds = tf.constant([i, 2 * i])
        drawn = layer.draw(seeds)
        expected = image
        for operation, magnitude, sign in zip(drawn["operation"].numpy(), drawn["magnitude"], drawn["sign"]):
            expected = policies.TIMM_INCREASING[operation](expected, magnitude, sign, "bilinear", TIMM_FILL)
            seen.add(operation)
        found = keras_cv.layers.Augmenter([layer])({"images": image, "seeds": seeds})["images"]
        assert np.abs(found - expected).max() <= 1
        assert (found == expected.numpy()).numpy().mean() > 0.99
    assert len(seen) > 8


def test_its_configuration_makes_it_again():
    layer = RandAugment("rand-m5-n3", interpolation="bicubic", fill=(1, 2, 3), salt=4, name="ra")
    again = RandAugment.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    seeds = tf.constant([5, 6])
    for a, b in zip(layer.draw(seeds).values(), again.draw(seeds).values()):
        np.testing.assert_array_equal(a, b)
