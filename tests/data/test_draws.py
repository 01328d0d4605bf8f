"""What must stay true of the randomness in a training stream, however it is made.

Every test takes a stream apart into what was drawn for each image in each epoch, by pictures in which a draw can be
seen. Draws are pure functions of (seed, epoch, image). Two epochs, two seeds, two images or two purposes have
nothing in common, and each draw has the distribution that its augmentation promises.
"""

import io
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_convmixer import Preprocessing
from keras_convmixer.data import augment, draws
from keras_convmixer.data.encoded_images import in_memory
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.recipes import Augmentation

COUNT, EPOCHS = 256, 12
# How far from its expectation, in standard deviations, a figure that is right may lie. There are thousands of them.
SIGMAS = 5.0


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(pixels, (64, 64, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


ACROSS, DOWN = np.meshgrid(np.arange(64), np.arange(64))
PICTURES = {
    "place": png(np.stack([4 * ACROSS, 4 * DOWN, 0 * DOWN], 2)),  # red says which column, green which row
    "grey": png(100),
    "white": png(255),
}


def photos(picture, bad=()):
    """Images that all look the same, each of a class of its own, which names it in the stream."""
    held = [b"" if i in bad else PICTURES[picture] for i in range(COUNT)]
    names = [str(i) for i in range(COUNT)]
    return in_memory(names, np.arange(COUNT), names, held)


def stream(images, recipe, *, seed=0, epochs=EPOCHS, batch_size=64, size=64):
    """(images, labels) of every epoch: `(epochs, COUNT, ...)`, in the stream's order."""
    batches = training_batches(
        images,
        Preprocessing((size, size), 1.0, "bilinear"),
        recipe,
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
    )
    pixels, labels = (np.concatenate(part) for part in zip(*batches.as_numpy_iterator()))
    return pixels.reshape(epochs, COUNT, size, size, 3), labels.reshape(epochs, COUNT, COUNT)


def by_image(values, labels):
    """The same values with each epoch's images in the order of the data set."""
    return np.stack([v[np.argsort(own.argmax(1))] for v, own in zip(values, labels)])


def crops(seed):
    recipe = Augmentation(crop_scale=(0.2, 0.8), crop_ratio=(1.0, 1.0))
    pixels, labels = stream(photos("place"), recipe, seed=seed)
    red, green = pixels[..., 0] / 4, pixels[..., 1] / 4
    left, right, top, bottom = red[:, :, 0, 0], red[:, :, 0, -1], green[:, :, 0, 0], green[:, :, -1, 0]
    side = right - left + 1
    found = {"area": side**2 / 64**2, "across": left / (64 - side), "down": top / (64 - side)}
    assert (bottom - top + 1 == side).mean() > 0.99
    return {name: by_image(values, labels) for name, values in found.items()}


def flips(seed):
    pixels, labels = stream(photos("place"), Augmentation(flip=0.5), seed=seed)
    return {"flip": by_image((pixels[:, :, 0, 0, 0] > 100).astype(float), labels)}


def shifts(seed):
    pixels, labels = stream(photos("place"), Augmentation(translation=20), seed=seed)
    right, down = pixels[:, :, 32, 32, 0] / 4 - 32, pixels[:, :, 32, 32, 1] / 4 - 32
    return {"right": by_image(right, labels), "down": by_image(down, labels)}


def cutouts(seed):
    pixels, labels = stream(photos("white"), Augmentation(cutout=24), seed=seed)
    gone = pixels[..., 0] < 250
    assert (gone.sum((2, 3)) == 24**2).all()
    return {name: by_image(gone.any(axis).argmax(2), labels) for name, axis in (("top", 3), ("left", 2))}


def colours(seed):
    """On a grey picture colour and contrast do nothing: what is left is the brightness."""
    pixels, labels = stream(photos("grey"), Augmentation(color_jitter=0.5), seed=seed)
    return {"brightness": by_image(pixels[:, :, 0, 0, 0], labels)}


def erasings(seed):
    recipe = Augmentation(random_erasing=0.5, erasing="zero")
    pixels, labels = stream(photos("white"), recipe, seed=seed)
    gone = pixels[..., 0] < 250
    erased = gone.any((2, 3))
    rows, columns = gone.any(3), gone.any(2)
    # Where nothing is erased there is no corner: half a step outside of those there are.
    top, left = (np.where(erased, axis.argmax(2) / (65 - axis.sum(2)), -0.5) for axis in (rows, columns))
    found = {"erased": erased.astype(float), "area": gone.mean((2, 3)), "top": top, "left": left}
    return {name: by_image(values, labels) for name, values in found.items()}


def operations(seed):
    """RandAugment's draws, painted into the picture in place of what they would do to it."""

    def paint(self, image, seeds):
        drawn = self.draw(seeds)
        values = tf.concat([tf.cast(drawn[name], tf.float32) for name in DRAWN], 0)
        return tf.broadcast_to(tf.pad(values, [[0, 64 - 2 * len(DRAWN)]])[:, None, None], image.shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment.RandAugment, "augment_image", paint)
        pixels, labels = stream(photos("grey"), Augmentation(rand_augment="rand-m5-mstd1-inc1"), seed=seed)
    values = by_image(pixels[:, :, : 2 * len(DRAWN), 0, 0], labels)
    names = [f"{name} {i}" for name in DRAWN for i in (1, 2)]
    return {name: values[:, :, i] for i, name in enumerate(names)}


DRAWN = ("operation", "applied", "magnitude", "sign", "bicubic")


def stand_ins(seed):
    """Half of the images cannot be read. Where one does not stand in for another there is no draw."""
    bad = range(0, COUNT, 2)
    pixels, labels = stream(photos("grey", bad), Augmentation(), seed=seed)
    order = orders(seed)
    found = np.full((EPOCHS, COUNT), np.nan)
    for epoch in range(EPOCHS):
        found[epoch, order[epoch]] = labels[epoch].argmax(1)
    assert (found[:, 1::2] == np.arange(1, COUNT, 2)).all()
    return {"stand-in": found[:, ::2]}


def orders(seed):
    """Which image comes where: (epochs, COUNT)."""
    _, labels = stream(photos("grey"), Augmentation(), seed=seed)
    return labels.argmax(2)


def places(seed):
    return {"place": np.argsort(orders(seed), 1).astype(float)}


PURPOSES = {
    "crop": crops,
    "flip": flips,
    "colour": colours,
    "translation": shifts,
    "cutout": cutouts,
    "erasing": erasings,
    "RandAugment": operations,
    "stand-in": stand_ins,
    "order": places,
}


@pytest.fixture(scope="module")
def drawn():
    """Purpose → what it drew → (epochs, images), made when first asked for."""
    made = {}

    def of(purpose, seed=0):
        if (purpose, seed) not in made:
            made[purpose, seed] = PURPOSES[purpose](seed)
        return made[purpose, seed]

    return of


def assert_independent(a, b, what):
    """Rank correlation, which finds what repeats, and a table of thirds, which finds other ties."""
    a, b = a.ravel(), b.ravel()
    correlation = scipy.stats.spearmanr(a, b).statistic
    assert abs(correlation) * np.sqrt(len(a)) < SIGMAS, f"{what}: correlation {correlation:.3f}"
    thirds = [np.digitize(v, np.unique(np.quantile(v, [1 / 3, 2 / 3]))) for v in (a, b)]
    table = scipy.stats.contingency.crosstab(*thirds).count
    if min(table.shape) > 1:
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-6, f"{what}: {table.tolist()}"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_draw_is_a_function_of_seed_epoch_and_image(drawn, purpose):
    again = PURPOSES[purpose](0)
    for name, values in drawn(purpose).items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_another_epoch_seed_or_image_has_draws_of_its_own(drawn, purpose):
    for name, values in drawn(purpose).items():
        for gap in (1, 2, EPOCHS // 2):
            assert_independent(values[gap:], values[:-gap], f"{name}, {gap} epochs apart")
        assert_independent(values, drawn(purpose, 1)[name], f"{name}, two seeds")
        for gap in (1, 2, 64):
            if purpose != "order":  # the places of two images differ, which is a dependence
                assert_independent(values[:, gap:], values[:, :-gap], f"{name}, {gap} images apart")


@pytest.mark.parametrize("one, other", itertools.combinations(PURPOSES, 2))
def test_no_two_purposes_share_their_draws(drawn, one, other):
    half = slice(None, None, 2) if "stand-in" in (one, other) else slice(None)  # only they have stand-ins
    for (a, ours), (b, theirs) in itertools.product(drawn(one).items(), drawn(other).items()):
        ours, theirs = (v if v.shape[1] < COUNT else v[:, half] for v in (ours, theirs))
        assert_independent(ours, theirs, f"{a} and {b}")


def assert_uniform(values, low, high, bins=8):
    counts, _ = np.histogram(values, bins, (low, high))
    assert counts.sum() == values.size
    assert scipy.stats.chisquare(counts).pvalue > 1e-6, counts


def assert_share(values, probability):
    error = np.sqrt(probability * (1 - probability) / values.size)
    assert abs(values.mean() - probability) < SIGMAS * error, values.mean()


def test_each_draw_has_the_distribution_that_is_promised(drawn):
    crop = drawn("crop")
    assert_uniform(crop["area"], 0.18, 0.82, bins=4)
    assert abs(crop["area"].mean() - 0.5) < 0.02
    assert_uniform(crop["across"], 0, 1 + 1e-6, bins=4)
    assert_uniform(crop["down"], 0, 1 + 1e-6, bins=4)
    assert_share(drawn("flip")["flip"], 0.5)
    assert_uniform(drawn("colour")["brightness"], 49.5, 150.5, bins=4)
    assert_share(drawn("erasing")["erased"], 0.5)
    for way in ("right", "down"):
        assert_uniform(drawn("translation")[way], -20.5, 20.5, bins=41)
    for corner in ("top", "left"):
        assert_uniform(drawn("cutout")[corner], -0.5, 40.5, bins=41)
    augmented = drawn("RandAugment")
    for i in (1, 2):
        assert_uniform(augmented[f"operation {i}"], -0.5, 14.5, bins=15)
        assert_share(augmented[f"applied {i}"], 0.5)
        assert_share(augmented[f"sign {i}"] > 0, 0.5)
        assert_share(augmented[f"bicubic {i}"], 0.5)
        assert scipy.stats.kstest(augmented[f"magnitude {i}"].ravel(), "norm", (5, 1)).pvalue > 1e-6
    # A stand-in that cannot be read either gives way to another: in the end one of those that can.
    assert_uniform(drawn("stand-in")["stand-in"], 0, COUNT)
    assert_uniform(drawn("order")["place"], 0, COUNT)


def test_the_draws_of_one_image_over_many_epochs_are_as_good_as_those_of_many_images():
    images = in_memory(["a", "b"], [0, 1], ["a", "b"], [PICTURES["place"]] * 2)
    batches = training_batches(
        images, Preprocessing((64, 64), 1.0), Augmentation(flip=0.5), batch_size=2, seed=3, epochs=1000
    )
    pixels, labels = (np.stack(part) for part in zip(*batches.as_numpy_iterator()))
    first, second = by_image((pixels[:, :, 0, 0, 0] > 100).astype(float), labels).T
    for flipped in (first, second):
        assert_share(flipped, 0.5)
        runs = 1 + np.sum(flipped[1:] != flipped[:-1])
        assert abs(runs - 501) < SIGMAS * np.sqrt(1000) / 2
        assert_independent(flipped[1:], flipped[:-1], "one epoch after another")
    assert_independent(first, second, "two images")
    assert_share(labels.argmax(2)[:, 0], 0.5)


def test_alternating_flips_show_each_image_both_ways_in_any_two_epochs():
    def mirrored(seed):
        pixels, labels = stream(photos("place"), Augmentation(flip="alternating"), seed=seed, epochs=4, size=16)
        return by_image((pixels[:, :, 0, 0, 0] > 100).astype(float), labels)

    found, other = mirrored(0), mirrored(1)
    np.testing.assert_array_equal(found[1:], 1 - found[:-1])
    assert_share(found[0], 0.5)
    assert_independent(found[0], other[0], "two seeds")
    for gap in (1, 2, 64):
        assert_independent(found[0, gap:], found[0, :-gap], f"{gap} images apart")


@pytest.mark.parametrize("recipe", [{"mixup": 0.5}, {"cutmix": 0.5}, {"mixup": 0.5, "cutmix": 0.5}])
def test_mixtures_differ_from_group_to_group_and_from_epoch_to_epoch(recipe):
    _, labels = stream(photos("grey"), Augmentation(**recipe, mix_group=4), size=32)
    groups = labels.reshape(EPOCHS, COUNT // 4, 4, COUNT)
    # λ, as the share that a group's first image keeps
    first, last = groups[:, :, 0], groups[:, :, 3]
    share = np.take_along_axis(first, (first + last).argmax(2)[..., None], 2)[..., 0]
    if "cutmix" not in recipe:  # whose boxes have whole sides
        assert len(np.unique(share.round(5))) > 0.8 * share.size
    assert_independent(share[1:], share[:-1], "one epoch after another")
    assert_independent(share[:, 1:], share[:, :-1], "one group after another")


def order(seed, epoch, count):
    key = draws.epoch_keys(seed, tf.constant(epoch))["order"]
    return draws.image_at(tf.range(count, dtype=tf.int64), key, count).numpy()


@pytest.mark.parametrize("count", [1_000, 9_469, 50_000, 65_536])
def test_the_orders_of_epochs_and_seeds_are_unrelated(count):
    which = [(0, epoch) for epoch in range(12)] + [(seed, 0) for seed in range(1, 5)]
    found = np.array([order(seed, epoch, count) for seed, epoch in which])
    assert all((np.bincount(one, minlength=count) == 1).all() for one in found)
    pairs = np.triu_indices(len(found), 1)
    z = np.corrcoef(found)[pairs] * np.sqrt(count)
    assert np.abs(z).max() < SIGMAS
    # The mean absolute correlation is that of random orders: 0.80 standard deviations.
    assert abs(np.abs(z).mean() - np.sqrt(2 / np.pi)) < SIGMAS * 0.6 / np.sqrt(len(z))
    # Images that were neighbours are neighbours again no more often than by chance.
    neighbours = [{tuple(sorted(pair)) for pair in one[: count // 2 * 2].reshape(-1, 2).tolist()} for one in found]
    again = sum(len(a & b) for a, b in itertools.combinations(neighbours, 2))
    expected = len(z) / 2
    assert abs(again - expected) < SIGMAS * np.sqrt(expected)


@pytest.mark.parametrize("count", [1_000, 9_469, 50_000, 65_536])
def test_batches_hold_their_classes_as_random_ones_do(count):
    """Of images that lie sorted by class, as in folders, a batch is a sample drawn without replacement."""
    classes, size = 10, 100
    labels = np.arange(count) * classes // count
    spread = []
    for epoch in range(12):
        batches = labels[order(5, epoch, count)][: count // size * size].reshape(-1, size)
        counts = np.stack([np.bincount(batch, minlength=classes) for batch in batches])
        spread.append(np.mean((counts - size / classes) ** 2))
    expected = size * (1 / classes) * (1 - 1 / classes) * (count - size) / (count - 1)
    error = expected * np.sqrt(2 / (12 * (count // size) * (classes - 1)))
    assert abs(np.mean(spread) - expected) < SIGMAS * error


RECIPES = st.builds(
    lambda mixing, **settings: Augmentation(**settings, **mixing),
    # Mixed images hide whether their parts came again: most are not.
    mixing=st.sampled_from(
        [{}, {}, {}, {"mixup": 0.5}, {"cutmix": 0.5, "mix_group": 16}, {"mixup": 0.5, "cutmix": 0.5}]
    ),
    crop_scale=st.sampled_from([None, (0.1, 0.9)]),
    flip=st.sampled_from([0.0, 0.5, "alternating"]),
    translation=st.sampled_from([0, 15]),
    cutout=st.sampled_from([0, 5]),
    rand_augment=st.sampled_from([None, "torchvision-n2-m12"]),
    color_jitter=st.sampled_from([0.0, 0.4]),
    random_erasing=st.sampled_from([0.0, 1.0]),
    erasing=st.sampled_from(["pixel", "zero"]),
)


@settings(max_examples=5, derandomize=True, phases=[Phase.generate])
@given(recipe=RECIPES, seed=st.integers(0, 2**31 - 1))
def test_no_epoch_of_any_recipe_shows_what_another_showed(recipe, seed):
    """Of pictures on which every change is seen, each epoch shows each, and none as before but by chance."""
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(COUNT)]
    images = in_memory(names, np.arange(COUNT), names, [png(rng.integers(0, 256, (64, 64, 3))) for _ in names])
    pixels, labels = stream(images, recipe, seed=seed, epochs=3, size=16)
    np.testing.assert_array_equal(pixels, stream(images, recipe, seed=seed, epochs=3, size=16)[0])
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(labels.argmax(2), 2))
    if not (recipe.mixup or recipe.cutmix):
        assert (np.sort(labels.argmax(2), 1) == np.arange(COUNT)).all()
    seen = [{image.tobytes() for image in epoch} for epoch in pixels]
    # Alternating flips show the same in every second epoch: that is their purpose.
    pairs = itertools.pairwise(seen) if recipe.flip == "alternating" else itertools.combinations(seen, 2)
    again = max(len(a & b) / COUNT for a, b in pairs)
    shifted = recipe.translation or recipe.cutout
    if any((recipe.crop_scale, recipe.color_jitter, recipe.random_erasing, shifted, recipe.mixup, recipe.cutmix)):
        assert again < 0.05
    elif recipe.flip or recipe.rand_augment:
        assert again < 0.5 + SIGMAS * 0.5 / np.sqrt(COUNT)
