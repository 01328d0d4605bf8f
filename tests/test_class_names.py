import pytest

from keras_convmixer import class_names


def test_imagenet_has_a_thousand_classes_in_the_order_of_the_heads():
    wordnet = list(class_names.imagenet())
    assert len(wordnet) == 1000
    assert wordnet == sorted(wordnet)
    assert class_names.display_name("n01440764") == "tench, Tinca tinca"
    assert class_names.display_name("cat") == "cat"


def test_imagenet_folders_match_by_wordnet_id():
    head = list(class_names.imagenet())
    # Two classes are called crane, two maillot: names would not do.
    found = ["n02012849_crane", "n03126707", "n01440764_tench"]
    assert class_names.match(found, head) == [head.index("n02012849"), head.index("n03126707"), 0]


def test_other_classes_match_by_name():
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
