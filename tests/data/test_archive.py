import errno
import gzip
import io
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from keras_convmixer import files
from keras_convmixer.data import archive

IMAGES = {f"photos/{name}/{i}.jpg": os.urandom(700) for name in ("cat", "dog") for i in range(4)}


def write_tar(path, members, compression="", **special):
    with tarfile.open(path, f"w:{compression}") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in special.items():
                setattr(info, attribute, value)
            file.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write(path, members):
    if path.suffix == ".zip":
        return write_zip(path, members)
    return write_tar(path, members, "" if path.suffix == ".tar" else "gz")


def contents(folder):
    return {
        str(path.relative_to(folder).as_posix()): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def nothing_left(cache):
    return not [path for path in cache.rglob("*") if path.name != "lock" and path.is_file()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVMIXER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


KINDS = ["a.tar", "a.tar.gz", "a.tgz", "a.ZIP".lower()]


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_is_unpacked_whole_and_once(name, tmp_path, cache):
    path = write(tmp_path / name, IMAGES)
    folder = archive.unpack(path)
    assert contents(folder) == IMAGES
    marked = folder / "photos" / "marked"
    marked.touch()
    assert archive.unpack(path) == folder
    assert marked.exists()


def test_a_changed_archive_is_unpacked_anew(tmp_path, cache):
    first = archive.unpack(write(tmp_path / "a.tar", IMAGES))
    second = archive.unpack(write(tmp_path / "a.tar", IMAGES | {"photos/cat/new.png": b"new"}))
    assert second != first
    assert "photos/cat/new.png" in contents(second)


def test_only_images_and_their_folders_are_written(tmp_path, cache):
    others = {"README.md": b"text", "photos/cat/run.sh": b"rm", "photos/cat/.hidden.jpg": b"", "noext": b""}
    path = write_zip(tmp_path / "a.zip", IMAGES | others | {"photos/empty/": b""})
    folder = archive.unpack(path)
    assert contents(folder) == IMAGES
    assert not (folder / "photos" / "empty").exists()


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip"])
@pytest.mark.parametrize(
    "name",
    ["../out.jpg", "cat/../../out.jpg", "/tmp/out.jpg", "..\\out.jpg", "C:\\out.jpg", "C:out.jpg", "\\out.jpg"],
)
def test_a_member_that_would_leave_its_folder_is_refused(kind, name, tmp_path, cache):
    path = write(tmp_path / kind, IMAGES | {name: b"escaped"})
    with pytest.raises(ValueError, match=r"cannot be unpacked: .* would leave its folder"):
        archive.unpack(path)
    assert nothing_left(cache)
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", {"cat/1.jpg": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match=r"is a (link|device); expected only files and folders"):
        archive.unpack(path)
    assert nothing_left(cache)


def test_a_link_in_a_zip_is_refused(tmp_path, cache):
    link = zipfile.ZipInfo("cat/1.jpg")
    link.external_attr = 0o120777 << 16
    path = write_zip(tmp_path / "a.zip", IMAGES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"'cat/1.jpg' is a link"):
        archive.unpack(path)
    assert nothing_left(cache)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_wherever_an_archive_breaks_off_it_is_reported_and_nothing_is_left(name, tmp_path, cache):
    whole = write(tmp_path / name, IMAGES).read_bytes()
    # a complete tar ends in at least two blocks of zeros, of which the first is enough
    end = 8 * (512 + 1024) + 511 if name == "a.tar" else len(whole) - 1
    for length in [*range(0, end, 397), *range(0, end, 1536), end]:
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged or incomplete") as caught:
            archive.unpack(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert nothing_left(cache)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_another_file_under_an_archives_name_is_reported(name, tmp_path, cache):
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        archive.unpack(tmp_path / name)


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path, cache):
    path = write(tmp_path / "a.tar", IMAGES)
    damaged = bytearray(path.read_bytes())
    damaged[3 * 1536] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        archive.unpack(path)


def test_a_damaged_image_in_a_zip_is_noticed(tmp_path, cache):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("cat/1.jpg", bytes(1000))
    damaged = bytearray(path.read_bytes())
    damaged[500] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        archive.unpack(path)


def test_an_encrypted_zip_is_refused(tmp_path, cache):
    path = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1234"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is encrypted"):
        archive.unpack(path)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_an_archive_that_grows_out_of_proportion_is_refused(name, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 1_000_000)
    path = write(tmp_path / name, {"cat/1.jpg": bytes(5_000_000)})
    with pytest.raises(ValueError, match="it would unpack to more than a set of images can"):
        archive.unpack(path)
    assert nothing_left(cache)


def test_many_empty_files_count_too(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 1_000_000)
    path = write(tmp_path / "a.tar.gz", {f"cat/{i}.jpg": b"" for i in range(400)})
    with pytest.raises(ValueError, match="it would unpack to more than a set of images can"):
        archive.unpack(path)


def test_a_full_disk_is_one_line_that_names_the_archive(tmp_path, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_copied", full)
    with pytest.raises(OSError, match=r"a.tar cannot be unpacked: .*No space left on device"):
        archive.unpack(write(tmp_path / "a.tar", IMAGES))
    assert nothing_left(cache)


def test_what_a_killed_process_left_behind_is_cleared_away(tmp_path, cache):
    path = write(tmp_path / "a.tar", IMAGES)
    folder = archive.unpack(path)
    folder.rename(folder.parent / ".writing-killed")
    assert contents(archive.unpack(path)) == IMAGES
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["images", "lock"]


def test_two_processes_unpack_it_once(tmp_path, cache):
    path = write(tmp_path / "a.tar.gz", {f"cat/{i}.jpg": os.urandom(100) for i in range(500)})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(archive.unpack, [path, path])
    assert folders[0] == folders[1]
    assert len(contents(folders[0])) == 500
    assert not list(folders[0].parent.glob(".writing-*"))


def test_gzip_is_known_by_its_content(tmp_path, cache):
    path = write(tmp_path / "a.tar", IMAGES)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert contents(archive.unpack(path)) == IMAGES


def write_gzipped(path, *parts):
    """A .tar.gz of these bytes, `(byte, count)` standing for many equal ones."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
                continue
            byte, count = part
            for start in range(0, count, 1 << 20):
                file.write(byte * min(1 << 20, count - start))
    return path


def header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_header_is_not_read_into_memory_however_long_it_says_it_is(kind, tmp_path, cache):
    path = write_gzipped(tmp_path / "a.tar.gz", header("x", 600 << 20, kind), (b"a", 600 << 20))
    before = peak_memory()
    with pytest.raises(ValueError, match="an extended header of 629,145,600 bytes"):
        archive.unpack(path)
    assert peak_memory() - before < 100e6
    assert nothing_left(cache)


def test_long_names_that_are_real_are_read(tmp_path, cache):
    name = "photos/" + "/".join(["folder" * 8] * 6) + "/1.jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as file:
            info = tarfile.TarInfo(name)
            info.size = 3
            file.addfile(info, io.BytesIO(b"abc"))
        assert contents(archive.unpack(path)) == {name: b"abc"}


def test_headers_of_headers_without_end(tmp_path, cache):
    path = write_gzipped(tmp_path / "a.tar.gz", header("x", 0, tarfile.XHDTYPE) * 5000)
    with pytest.raises(ValueError, match="extended headers"):
        archive.unpack(path)


@pytest.mark.parametrize(
    "parts",
    [
        [header("hole.jpg", 512, tarfile.GNUTYPE_SPARSE), (b"\x01", 200 << 20)],
        [
            header("x", 512, tarfile.XHDTYPE),
            b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0"),
            header("hole.jpg", 200 << 20, tarfile.REGTYPE),
            (b"9\n", 200 << 19),
        ],
    ],
    ids=["gnu", "pax"],
)
def test_files_with_holes_are_refused_before_their_maps_are_read(parts, tmp_path, cache):
    before = peak_memory()
    with pytest.raises(ValueError, match="sparse"):
        archive.unpack(write_gzipped(tmp_path / "a.tar.gz", *parts))
    assert peak_memory() - before < 100e6


@pytest.mark.parametrize("name", KINDS)
def test_folders_without_end_are_refused(name, tmp_path, cache):
    path = write(tmp_path / name, {"a/" * 2000 + "1.jpg": b"x"})
    with pytest.raises(ValueError, match="more than 100 folders deep") as error:
        archive.unpack(path)
    assert len(str(error.value)) < 300
    assert nothing_left(cache)


def test_more_folders_than_any_set_of_images_has(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FOLDERS", 50)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(51):
            file.writestr(f"photos/{i}/1.jpg", b"")
    with pytest.raises(ValueError, match="more than 50 folders"):
        archive.unpack(path)
    assert not list(cache.rglob("photos"))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_in_any_compression_is_one_line(method, tmp_path, cache):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("photos/cat/1.jpg", os.urandom(5000))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"a\.zip") as error:
        archive.unpack(path)
    assert "\n" not in str(error.value)
    assert nothing_left(cache)


def test_what_is_no_image_counts_as_well(tmp_path, cache, monkeypatch):
    """Reading over gigabytes of zeros takes its time too."""
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 1 << 20)
    parts = header("notes.txt", 300 << 20, tarfile.REGTYPE), (b"\0", 300 << 20)
    with pytest.raises(ValueError, match="more than a set of images can"):
        archive.unpack(write_gzipped(tmp_path / "a.tar.gz", *parts))


def with_size(header, size):
    """A tar header that claims another size, as large or negative ones are written."""
    header = bytearray(header)
    header[124:136] = (0xFF if size < 0 else 0x80).to_bytes() + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


NOTE = header("note.txt", 0, tarfile.REGTYPE)


@pytest.mark.parametrize(
    "content",
    [
        NOTE + with_size(NOTE, -512),
        NOTE + with_size(header("x", 0, tarfile.XHDTYPE), -512) + b"a" * 2048,
        NOTE + header("x", 512, tarfile.XHDTYPE) + b"13 size=-512\n".ljust(512, b"\0") + NOTE,
    ],
    ids=["member", "extended header", "pax"],
)
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_size_below_0_does_not_go_round_in_circles(content, name, tmp_path, cache):
    content += bytes(1024)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ValueError, match="is damaged or incomplete: a size of -512"):
        archive.unpack(tmp_path / name)


def test_a_header_of_digits_is_soon_refused(tmp_path, cache):
    path = tmp_path / "a.tar"
    path.write_bytes(header("x", 1 << 19, tarfile.XHDTYPE) + b"1" * (1 << 19) + NOTE + bytes(1024))
    began = time.monotonic()
    with pytest.raises(ValueError, match="a number of more than 100 digits"):
        archive.unpack(path)
    assert time.monotonic() - began < 5


def test_headers_for_all_members_do_not_pile_up(tmp_path, cache):
    path, part = tmp_path / "a.tar", b""
    for i in range(33):
        part += header("g", 512, tarfile.XGLTYPE) + (b"13 kind%02d=dd\n" % i)[:13].ljust(512, b"\0") + NOTE
    path.write_bytes(part + bytes(1024))
    with pytest.raises(ValueError, match="more than 32 headers for all its members"):
        archive.unpack(path)


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
def test_members_that_are_no_images_count_too_and_leave_no_folders(kind, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 1_000_000)
    others = {f"photos/{i}/": b"" for i in range(150)} | {f"{i}.txt": b"" for i in range(150)}
    path = tmp_path / kind
    if kind == "a.zip":
        write_zip(path, others)
        monkeypatch.setattr(archive, "MOST_GROWTH", 1)
    else:
        write_gzipped(path, b"".join(header(name, 0, tarfile.REGTYPE) for name in others), bytes(1024))
    with pytest.raises(ValueError, match="more than a set of images can"):
        archive.unpack(path)
    assert nothing_left(cache)


def test_folders_around_an_image_count_too(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FOLDERS", 50)
    path = write_zip(tmp_path / "a.zip", {f"{'/'.join(str(i) * 20)}/1.jpg": b"" for i in range(3)})
    with pytest.raises(ValueError, match="more than 50 folders"):
        archive.unpack(path)


@pytest.mark.parametrize("method, name", [(zipfile.ZIP_LZMA, "lzma"), (zipfile.ZIP_BZIP2, "bzip2")])
def test_what_unpacks_to_a_million_times_its_size_is_refused(method, name, tmp_path, cache):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as file, file.open("cat/1.jpg", "w") as member:
        for _ in range(100):
            member.write(bytes(1 << 20))
    before = peak_memory()
    with pytest.raises(ValueError, match=f"it is compressed by {name}; expected deflate or none"):
        archive.unpack(path)
    assert peak_memory() - before < 50e6


def test_a_zip_that_is_nothing_but_a_list_of_members_is_refused(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED_LIST", 10_000)
    write_zip(tmp_path / "a.zip", IMAGES)
    assert contents(archive.unpack(tmp_path / "a.zip")) == IMAGES
    write_zip(tmp_path / "b.zip", {f"{i}.txt": b"" for i in range(300)})
    with pytest.raises(ValueError, match="the list of its members is longer than"):
        archive.unpack(tmp_path / "b.zip")


@pytest.mark.parametrize("start", ["../", "photos/"])
def test_a_name_of_a_million_characters_is_not_repeated(start, tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", {start + "n" * 900_000 + ".jpg": b""})
    with pytest.raises((ValueError, OSError), match=r"a\.tar cannot be unpacked") as error:
        archive.unpack(path)
    assert len(str(error.value)) < 500


def test_any_archive_clears_away_what_a_killed_process_left_of_another(tmp_path, cache):
    first = archive.unpack(write(tmp_path / "a.tar", IMAGES)).parent
    second = archive.unpack(write(tmp_path / "b.tar", IMAGES)).parent
    for room in (first, second):
        (room / "images").rename(room / ".writing-killed")
    with files.locked(second / "lock"):
        archive.unpack(write(tmp_path / "c.tar", IMAGES))
    assert not (first / ".writing-killed").exists()
    assert (second / ".writing-killed").exists()


@pytest.mark.parametrize("name", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_process_that_is_stopped_leaves_nothing(name, tmp_path, cache):
    path = write(tmp_path / "a.zip", {f"cat/{i}.jpg": b"x" for i in range(60_000)})
    program = """
import signal, sys
from keras_convmixer.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
sys.exit(main(['data', sys.argv[1]]))
"""
    process = subprocess.Popen([sys.executable, "-c", program, path], env=os.environ, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(cache.glob("archives/*/.writing-*/images/cat")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(name)
        assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143}[name]
    finally:
        process.kill()
    assert nothing_left(cache)
    assert not list(cache.glob("archives/*/.writing-*"))
