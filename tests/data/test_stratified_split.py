import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer.data.stratified_split import stratified_split

counts = st.lists(st.integers(1, 40), min_size=1, max_size=6)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31)


def images(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels, [f"class{label}/{i}.jpg" for i, label in enumerate(labels)]


@given(counts, fractions, seeds)
def test_the_sides_are_disjoint_and_together_everything(counts, fraction, seed):
    training, validation = stratified_split(*images(counts), fraction, seed)
    assert sorted([*training, *validation]) == list(range(sum(counts)))


@given(counts, fractions, seeds)
def test_each_class_gives_its_share_and_keeps_one_image(counts, fraction, seed):
    labels, names = images(counts)
    _, validation = stratified_split(labels, names, fraction, seed)
    for label, count in enumerate(counts):
        held_out = np.sum(labels[validation] == label)
        if count == 1:
            assert held_out == 0
        else:
            assert 1 <= held_out <= count - 1
            assert abs(held_out - fraction * count) <= 1


@given(counts, fractions, seeds, st.randoms())
def test_the_order_of_the_files_does_not_matter(counts, fraction, seed, random):
    labels, names = images(counts)
    order = list(range(len(names)))
    random.shuffle(order)
    _, validation = stratified_split(labels, names, fraction, seed)
    _, shuffled = stratified_split(labels[order], [names[i] for i in order], fraction, seed)
    assert {names[i] for i in validation} == {names[order[i]] for i in shuffled}


def test_another_seed_gives_another_split():
    labels, names = images([50, 50])
    splits = {tuple(stratified_split(labels, names, 0.5, seed)[1]) for seed in range(5)}
    assert len(splits) == 5


def test_a_removed_image_leaves_the_others_where_they_were():
    labels, names = images([100])
    _, validation = stratified_split(labels, names, 0.2, 0)
    removed = next(i for i in range(100) if i not in validation)
    labels, kept = np.delete(labels, removed), names[:removed] + names[removed + 1 :]
    _, after = stratified_split(labels, kept, 0.2, 0)
    assert {kept[i] for i in after} == {names[i] for i in validation}


def test_fraction_zero_holds_nothing_out():
    assert len(stratified_split(*images([5, 5]), 0, 0)[1]) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="validation_fraction must be at least 0 and below 1"):
        stratified_split(*images([2]), fraction, 0)


def test_names_that_are_not_utf8_have_their_place_too():
    names = [os.fsdecode(b"\xff%d.jpg" % i) for i in range(10)]
    training, validation = stratified_split([0] * 10, names, 0.5, 0)
    assert (len(training), len(validation)) == (5, 5)


@pytest.mark.parametrize("fraction, expected", [(0.01, 1), (0.25, 3), (0.3, 3), (0.35, 4), (0.99, 9)])
def test_the_share_of_ten_images_is_rounded(fraction, expected):
    assert len(stratified_split(*images([10]), fraction, 0)[1]) == expected


def test_a_split_stays_what_it_was_in_earlier_versions():
    """Else a model would be measured on images that it was trained on."""
    _, validation = stratified_split([0] * 6 + [1] * 6, [f"{i}.png" for i in range(12)], 0.4, 0)
    assert validation.tolist() == [2, 5, 6, 10]
