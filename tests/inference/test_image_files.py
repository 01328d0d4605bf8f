"""Images from addresses, from stdin and from a home folder, with a server that misbehaves as asked."""

import io
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tensorflow as tf

from keras_convmixer import predict
from keras_convmixer.cli import main
from keras_convmixer.inference import image_files


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        locations = {"/moved": "/photo", "/to-a-file": "file:///etc/passwd", "/ring": "/ring"}
        if self.path in locations:
            self.send_response(302)
            self.send_header("Location", locations[self.path])
            return self.end_headers()
        if self.path == "/absent":
            return self.send_error(404)
        self.send_response(200)
        self.end_headers()
        try:
            if self.path == "/photo":
                self.wfile.write(self.server.photo)
            elif self.path == "/page":
                self.wfile.write(b"<html>")
            while self.path in ("/endless", "/drip"):
                self.wfile.write(bytes(2**20 if self.path == "/endless" else 1))
                self.server.sent += 2**20
                time.sleep(0.2 if self.path == "/drip" else 0)
        except OSError:
            pass  # the other side has had enough
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def photo(digits):
    return digits.held_out().encoded(tf.constant(0, tf.int64)).numpy()


@pytest.fixture
def server(photo):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.photo, server.sent = True, photo, 0
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_address_an_image_on_stdin_and_a_file_at_home_give_the_same(
    bundle, server, photo, tmp_path, monkeypatch, capsys
):
    (tmp_path / "0.png").write_bytes(photo)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo)))
    paths = [f"{server.address}/photo", "-", "~/0.png", f"{server.address}/moved", "-"]
    found = predict(bundle, paths)
    assert [str(one.path) for one in found] == [*paths[:2], str(tmp_path / "0.png"), paths[3]]
    assert [one.error for one in found] == [None] * 4
    assert all(one.classes == found[0].classes for one in found)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo)))
    assert main(["predict", str(bundle.path), "-", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("-\n")


def test_what_an_address_does_not_give_is_named_in_bounded_time_and_size(
    bundle, server, photo, tmp_path, monkeypatch
):
    monkeypatch.setattr(image_files, "MOST_SECONDS", 1)
    (tmp_path / "0.png").write_bytes(photo)
    expected = {
        f"{server.address}/absent": "the server answered 404 Not Found",
        f"{server.address}/page": "not a JPEG",
        f"{server.address}/drip": "it took more than 1 seconds",
        f"{server.address}/to-a-file": "file:///etc/passwd: only http and https addresses are read",
        f"{server.address}/ring": "redirected more than 5 times",
        "http://127.0.0.1:9/photo": "the server cannot be reached",
        "ftp://127.0.0.1/photo": "only http and https addresses are read",
        "file:///etc/passwd": "only http and https addresses are read",
        "http://[": "the server cannot be reached",
    }
    start = time.monotonic()
    *failed, last = predict(bundle, [*expected, tmp_path / "0.png"])
    assert time.monotonic() - start < 20
    assert last.error is None
    for prediction, (path, words) in zip(failed, expected.items(), strict=True):
        assert prediction.path == path
        assert words in prediction.error
        assert "\n" not in prediction.error


def test_an_endless_answer_and_an_endless_stdin_are_given_up(bundle, server, monkeypatch):
    with open("/dev/zero") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        first, second = predict(bundle, [f"{server.address}/endless", "-"])
    assert first.error == second.error == "more than 64 MiB"
    assert server.sent < 2 * image_files.MOST_BYTES


def test_a_missing_file_is_named_and_the_exit_code_says_so(bundle, photo, tmp_path, capsys):
    (tmp_path / "0.png").write_bytes(photo)
    gone = str(tmp_path / "gone.png")
    assert main(["predict", str(bundle.path), gone, str(tmp_path / "0.png"), "--top", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [gone, "  error: no such file or folder", str(tmp_path / "0.png")]
    assert "%" in lines[3]


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_linked_folders_count_once(tmp_path):
    (tmp_path / "disk" / "2023").mkdir(parents=True)
    (tmp_path / "disk" / "2023" / "2.jpg").touch()
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").touch()
    (photos / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(photos)
    found = image_files.find_images([photos], tmp_path)
    assert [image.path for image in found] == [photos / "1.jpg", photos / "linked" / "2023" / "2.jpg"]
