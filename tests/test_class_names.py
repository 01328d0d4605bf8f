import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer import class_names


def test_imagenet_has_a_thousand_classes_in_the_order_of_the_heads():
    wordnet = list(class_names.imagenet())
    assert len(wordnet) == 1000
    assert wordnet == sorted(wordnet)
    assert class_names.display_name("n01440764") == "tench, Tinca tinca"
    assert class_names.display_name("cat") == "cat"
    names = set(map(class_names.display_name, wordnet))
    assert len(names) == 1000  # each tells its class from all others, also the two cranes
    assert class_names.display_name("n02012849") == "crane, wading bird"


def test_imagenet_folders_match_by_wordnet_id():
    head = list(class_names.imagenet())
    # Two classes are called crane, two maillot.
    found = ["n02012849_crane", "n03126707", "n01440764_tench"]
    assert class_names.match(found, head) == [head.index("n02012849"), head.index("n03126707"), 0]


def test_imagenet_folders_match_the_words_of_an_exported_file_where_they_are_unique():
    head = ["goldfish, Carassius auratus", "crane", "tench, Tinca tinca", "crane"]
    assert class_names.match(["n01440764", "n01443537_goldfish"], head) == [2, 0]
    for ambiguous in ("n02012849", "crane"):
        with pytest.raises(ValueError, match=f"1 of the data's 2 classes .*: {ambiguous} "):
            class_names.match(["n01440764", ambiguous], head)


def test_other_classes_match_by_name():
    assert class_names.match(["cat_black"], ["cat", "cat_black"]) == [1]
    with pytest.raises(ValueError, match=r"cat_black \(the model has cat\)"):
        class_names.match(["cat_black"], ["cat"])
    assert class_names.match(["b", "a"], ["a", "b", "c"]) == [1, 0]
    with pytest.raises(ValueError, match=r"1 of the data's 2 classes .* d \(the model has a, b, c\)"):
        class_names.match(["a", "d"], ["a", "b", "c"])


def test_reads_one_name_a_line(tmp_path):
    (tmp_path / "class_names.txt").write_text("grey wolf\ndog\n", encoding="utf-8")
    assert class_names.read(tmp_path / "class_names.txt") == ("grey wolf", "dog")
    for text in ("", "dog\ndog\n"):
        (tmp_path / "class_names.txt").write_text(text)
        with pytest.raises(ValueError, match="one class a line"):
            class_names.read(tmp_path / "class_names.txt")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee\n", encoding="utf-8-sig")
    assert class_names.read(tmp_path / "classes.txt") == ("ant", "bee")


def test_a_class_is_found_by_its_name_or_else_its_position():
    head = ("7", "cat, tabby", "dog")
    assert [class_names.index_of(wanted, head) for wanted in ("dog", "cat, tabby", "7", "1", 2)] == [2, 1, 0, 1, 2]
    for wanted, hint in {"doge": "did you mean 'dog'?", "3": "give a name or 0 to 2", -1: "0 to 2"}.items():
        with pytest.raises(ValueError, match=hint):
            class_names.index_of(wanted, head)
    # A comma is part of a name that is not ImageNet's.
    with pytest.raises(ValueError, match="no class 'tabby'"):
        class_names.index_of("tabby", head)


def test_an_imagenet_class_is_found_by_one_of_its_words():
    head = tuple(class_names.imagenet())
    for wanted in ("n01443537", "goldfish", "Carassius auratus", "goldfish, Carassius auratus", "1"):
        assert class_names.index_of(wanted, head) == 1
    with pytest.raises(ValueError, match="'crane' names the classes 134, 517: give one of these numbers"):
        class_names.index_of("crane", head)


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "a\u2028b", "a\x85b", "\x1b[31mred", "\x00", "  ", "", "\udcff"])
def test_names_that_no_line_or_terminal_can_hold_are_refused(bad):
    with pytest.raises(ValueError, match="cannot name a class: expected one line of visible characters") as caught:
        class_names.check(["dog", bad], "photos")
    assert str(caught.value).isprintable()


@given(st.lists(st.text(), min_size=1, unique=True))
def test_names_that_pass_come_back_from_their_file(names):
    try:
        checked = class_names.check(names, "photos")
    except ValueError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.txt"
        path.write_text("".join(f"{name}\n" for name in checked), encoding="utf-8", newline="")
        assert class_names.read(path) == tuple(names)


@pytest.mark.parametrize("name", ["Straße", "犬　猫", "chien à poil", "🐕‍🦺", "n02084071"])
def test_names_of_all_languages_pass(name):
    assert class_names.check([name], "photos") == (name,)
