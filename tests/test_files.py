import os

import pytest

from keras_convmixer import files
from keras_convmixer.errors import UserError


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link") == b"content"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", os.devnull):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_regular(path)
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "nowhere")


def test_replaces_a_file_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "first")
    files.write_text(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "kept")
    with pytest.raises(OSError, match="disk full"), files.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "kept"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_replaces_a_folder_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("first", "second"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert os.listdir(path) == ["second"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_folder_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "kept").write_text("")
    with pytest.raises(ValueError), files.replacing(path) as temporary:  # noqa: PT012
        temporary.mkdir()
        raise ValueError
    assert os.listdir(path) == ["kept"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    # Root, as whom tests may run, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "locked")
    for path in (tmp_path / "locked", tmp_path / "locked" / "new" / "newer"):
        with pytest.raises(UserError, match=r"cannot be written into: the folder .*locked may not be written to"):
            files.check_folder(path)
    files.check_folder(tmp_path / "new" / "newer")
    assert os.listdir(tmp_path) == ["locked"]


def test_new_files_have_the_usual_permissions(tmp_path):
    files.write_text(tmp_path / "ours", "")
    (tmp_path / "usual").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
