"""Folders of images: which layout a folder has, its classes and its files. Nothing is decoded here."""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from keras_convmixer import class_names
from keras_convmixer.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif")
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
LAYOUTS = "expected split/class/image, class/image or files that begin with a WordNet id and an underscore"


class File(NamedTuple):
    """An image file: its path under the root with "/" between the parts, its size and time of change."""

    name: str
    size: int
    changed: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """What lies in a folder of images.

    Attributes:
        root: the folder that file names start from.
        classes: class names, sorted.
        splits: "train", "validation" or "test", or only "all" where the folder has no splits → a list of
            `(file, label)`, sorted by name.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[tuple[File, int]]]


def is_image(name):
    """Whether a file's name says that it is an image: a known suffix, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not _hidden(name)


def read_folder(path):
    """Lists a folder of images in one of three layouts.

    `split/class/image` with splits train, val (or validation) and test; `class/image`; or `WNID_name.JPEG` with
    ImageNet's WordNet ids for classes. A folder around all of that is looked through. Below a class, images may
    lie at any depth. Hidden files and files without an image suffix are ignored.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: the folder cannot be read.
        ValueError: it has no images, an empty class, a single class, or a class that its train split lacks.
    """
    try:
        return _read_folder(_unwrapped(Path(path)))
    except RecursionError:
        raise UserError(f"{path}: its folders lie in each other too deep to be followed") from None


def unlabelled(path):
    """The images of a folder that holds nothing else, in no class; None of any other folder.

    Returns:
        `(root, files)`: the folder, or the only one in it, and a list of `File`.
    """
    root = Path(path)
    folders, files = _entries(root)
    if len(folders) == 1 and not files:
        root = root / folders[0]
        folders, files = _entries(root)
    if folders or not files or all(_wordnet_id(file.name) for file in files):
        return None
    return root, files


def _read_folder(root):
    parts = {folder: SPLITS[folder.lower()] for folder in _entries(root)[0] if folder.lower() in SPLITS}
    parts = {folder: split for folder, split in parts.items() if _holds_classes(root / folder)}
    if not parts:
        found = {"all": _classes(root, "")}
    else:
        others = [name for name in _entries(root)[0] if name not in parts]
        if others:
            raise UserError(
                f"{root}: {', '.join(others)} is no split; beside {', '.join(parts)} expected none else"
            )
        if len(set(parts.values())) < len(parts):
            raise UserError(f"{root} has one split twice: {', '.join(parts)}")
        parts = dict(sorted(parts.items(), key=lambda part: list(SPLITS.values()).index(part[1])))
        found = {split: _classes(root, folder + "/") for folder, split in parts.items()}
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    for split, files in found.items():
        strange = sorted(set(files) - set(classes))
        if strange:
            raise UserError(f"{root}: {split} has classes that train lacks: {', '.join(strange[:5])}")
    if len(classes) < 2:
        raise UserError(f"{root} has only one class, {classes[0]}; a classifier needs at least two")
    label = {name: i for i, name in enumerate(classes)}
    return Folder(
        root,
        classes,
        {
            split: sorted((file, label[name]) for name, files in members.items() for file in files)
            for split, members in found.items()
        },
    )


def _unwrapped(root):
    """The folder itself, or the one that is all it holds and that holds the classes, as archives often have it."""
    folders, files = _entries(root)
    if len(folders) == 1 and not files and folders[0].lower() not in SPLITS and _holds_classes(root / folders[0]):
        return _unwrapped(root / folders[0])
    return root


def _holds_classes(folder):
    folders, files = _entries(folder)
    return bool(folders) or (bool(files) and all(_wordnet_id(file.name) for file in files))


def _classes(root, prefix):
    """Class name → files, of the folder `root/prefix`."""
    folders, files = _entries(root / prefix)
    if folders:
        members = {name: list(_images_below(root, f"{prefix}{name}/")) for name in folders}
        empty = [name for name, images in members.items() if not images]
        if len(empty) == len(folders):
            raise UserError(f"{root / prefix} has no images ({', '.join(SUFFIXES)}); {LAYOUTS}")
        if empty:
            raise UserError(
                f"{root / prefix}: no images in class {', '.join(empty[:5])}; remove or fill its folder"
            )
        return members
    if not files:
        raise UserError(f"{root / prefix} has no images ({', '.join(SUFFIXES)}); {LAYOUTS}")
    members = {}
    for file in files:
        wnid = _wordnet_id(file.name)
        if not wnid:
            raise UserError(f"{root / prefix} has images without a class, like {file.name}; {LAYOUTS}")
        members.setdefault(wnid, []).append(file._replace(name=prefix + file.name))
    return members


def _images_below(root, prefix):
    folders, files = _entries(root / prefix, follow_links=False)
    for file in files:
        yield file._replace(name=prefix + file.name)
    for folder in folders:
        yield from _images_below(root, f"{prefix}{folder}/")


def _entries(folder, follow_links=True):
    """The visible folders' names and the image files in a folder, both sorted.

    Args:
        follow_links: whether a link to a folder counts as one. Below a class it does not: links can form a ring.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                if _is_folder(entry, follow_links):
                    folders.append(entry.name)
                elif is_image(entry.name) and (entry.is_symlink() or entry.is_file()):
                    files.append(_file(entry))
    except PermissionError:
        raise PermissionError(f"{folder}: no permission to read this folder") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: no such file or folder") from None
    return sorted(folders), sorted(files)


def _is_folder(entry, follow_links):
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:  # a ring of links
        return False


def _file(entry):
    try:
        status = entry.stat()
    except OSError:
        # a link to nowhere: it stays in the list, so that it is reported among the images that cannot be read
        return File(entry.name, 0, 0)
    return File(entry.name, status.st_size, status.st_mtime_ns)


def _hidden(name):
    # macOS puts a __MACOSX folder beside the real one into its zip files
    return name.startswith((".", "__MACOSX"))


def _wordnet_id(file_name):
    head, underscore, _ = file_name.partition("_")
    return head if underscore and head in class_names.imagenet() else None
