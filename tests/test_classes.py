import pytest

from keras_convmixer import classes


def test_imagenet_has_a_thousand_classes_in_the_order_of_the_heads():
    wordnet = list(classes.imagenet())
    assert len(wordnet) == 1000
    assert wordnet == sorted(wordnet)
    assert classes.display_name("n01440764") == "tench, Tinca tinca"
    assert classes.display_name("cat") == "cat"


def test_imagenet_folders_match_by_wordnet_id():
    head = list(classes.imagenet())
    # Two classes are called crane, two maillot: names would not do.
    found = ["n02012849_crane", "n03126707", "n01440764_tench"]
    assert classes.match(found, head) == [head.index("n02012849"), head.index("n03126707"), 0]


def test_other_classes_match_by_name():
    assert classes.match(["b", "a"], ["a", "b", "c"]) == [1, 0]
    with pytest.raises(ValueError, match=r"1 of the data's 2 classes .* d \(the model has a, b, c\)"):
        classes.match(["a", "d"], ["a", "b", "c"])


def test_reads_one_name_a_line(tmp_path):
    (tmp_path / "classes.txt").write_text("grey wolf\ndog\n", encoding="utf-8")
    assert classes.read(tmp_path / "classes.txt") == ("grey wolf", "dog")
    for text in ("", "dog\ndog\n"):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(ValueError, match="one class a line"):
            classes.read(tmp_path / "classes.txt")
