import os
import tempfile
from pathlib import Path

import pytest

from keras_convmixer.data.image_folder import read_folder, unlabelled


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(b"x")
    return root


def names(folder):
    return {split: [(file.name, label) for file, label in files] for split, files in folder.splits.items()}


def test_class_folders(tmp_path):
    found = read_folder(tree(tmp_path, "dog/1.jpg", "cat/2.PNG", "cat/1.webp"))
    assert found.root == tmp_path
    assert found.classes == ("cat", "dog")
    assert names(found) == {"all": [("cat/1.webp", 0), ("cat/2.PNG", 0), ("dog/1.jpg", 1)]}


@pytest.mark.parametrize("name", ["val", "validation", "Val"])
def test_splits(tmp_path, name):
    found = read_folder(tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{name}/b/2.jpg", "test/a/3.jpg"))
    assert found.classes == ("a", "b")
    assert names(found) == {
        "train": [("train/a/1.jpg", 0), ("train/b/1.jpg", 1)],
        "validation": [(f"{name}/b/2.jpg", 1)],
        "test": [("test/a/3.jpg", 0)],
    }


def test_files_named_by_wordnet_id_in_a_folder_around_them(tmp_path):
    found = read_folder(tree(tmp_path, "images/n01440764_tench.JPEG", "images/n02510455_panda.JPEG"))
    assert found.root == tmp_path / "images"
    assert found.classes == ("n01440764", "n02510455")
    assert names(found) == {"all": [("n01440764_tench.JPEG", 0), ("n02510455_panda.JPEG", 1)]}


def test_images_may_lie_deeper_below_their_class(tmp_path):
    found = read_folder(tree(tmp_path, "train/a/images/1.jpg", "train/b/images/2.jpg"))
    assert names(found) == {"train": [("train/a/images/1.jpg", 0), ("train/b/images/2.jpg", 1)]}


def test_a_class_may_be_called_test(tmp_path):
    assert read_folder(tree(tmp_path, "test/1.jpg", "exam/1.jpg")).classes == ("exam", "test")


def test_hidden_files_and_other_suffixes_are_ignored(tmp_path):
    others = (
        ".git/x.jpg",
        "a/.2.jpg",
        "a/._1.jpg",
        "a/Thumbs.db",
        "a/.cache/3.jpg",
        "notes.txt",
        "__MACOSX/a/1.jpg",
    )
    found = read_folder(tree(tmp_path, "a/1.jpg", "b/1.jpg", *others))
    assert names(found) == {"all": [("a/1.jpg", 0), ("b/1.jpg", 1)]}


def test_a_link_that_leads_nowhere_is_listed_so_that_it_is_reported(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert ("a/2.jpg", 0) in names(read_folder(tmp_path))["all"]


def test_a_ring_of_links_below_a_class_is_not_followed(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    assert names(read_folder(tmp_path)) == {"all": [("a/1.jpg", 0), ("b/1.jpg", 1)]}


def test_linked_class_folders_are_read(tmp_path):
    tree(tmp_path, "elsewhere/1.jpg", "data/a/1.jpg")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    assert read_folder(tmp_path / "data").classes == ("a", "b")


BAD = {
    "no images": (["notes.txt"], "has no images"),
    "empty folders only": (["a/", "b/"], "has no images"),
    "empty class": (["a/1.jpg", "b/1.jpg", "c/"], "no images in class c; remove or fill its folder"),
    "empty class in val": (["train/a/1.jpg", "train/b/1.jpg", "val/a/"], "has no images"),
    "one class": (["a/1.jpg", "a/2.jpg"], "has only one class, a;"),
    "one class of two splits": (["train/a/1.jpg", "val/a/2.jpg"], "has only one class, a;"),
    "no classes": (["1.jpg", "2.jpg"], "has images without a class, like 1.jpg; expected split/class/image"),
    "not all WordNet": (["n01440764_x.jpg", "n99999999_x.jpg"], "without a class, like n99999999_x.jpg"),
    "unknown class": (
        ["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"],
        "validation has classes that train lacks: c",
    ),
    "a split twice": (["train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg"], "has one split twice"),
    "beside splits": (["train/a/1.jpg", "train/b/1.jpg", "extra/a/1.jpg"], "extra is no split"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_cannot_be_used_is_one_clear_line(name, tmp_path):
    paths, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_folder(tree(tmp_path, *paths))
    assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder"):
        read_folder(tmp_path / "gone")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_folder_without_permission():
    with tempfile.TemporaryDirectory() as room:
        os.chmod(room, 0o755)
        folder = tree(Path(room), "a/1.jpg", "b/1.jpg")
        (folder / "b").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            with pytest.raises(PermissionError, match=r"b/?: no permission to read this folder"):
                read_folder(folder)
        finally:
            os.seteuid(user)
            (folder / "b").chmod(0o755)


def test_images_without_classes_are_told_from_others(tmp_path):
    tree(tmp_path, "flat/b.png", "flat/a.jpg", "around/photos/a.png", "classes/cat/a.png", "classes/dog/a.png")
    tree(tmp_path, "wordnet/n02510455_panda.JPEG", "both/a.png", "both/cat/a.png", "none/readme.txt")
    found = {name: unlabelled(tmp_path / name) for name in os.listdir(tmp_path)}
    assert {name for name, images in found.items() if images} == {"flat", "around"}
    root, files = found["flat"]
    assert (root, [file.name for file in files]) == (tmp_path / "flat", ["a.jpg", "b.png"])
    assert found["around"][0] == tmp_path / "around" / "photos"
