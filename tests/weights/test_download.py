"""Downloads, from a server on this machine that misbehaves as asked."""

import contextlib
import hashlib
import multiprocessing
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from keras_convmixer import files
from keras_convmixer.variants import create_model
from keras_convmixer.weights.download import DownloadError, download
from keras_convmixer.weights.state_dict import save_torch

DATA = np.random.default_rng(0).bytes(3_000_000)
SUM = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body`. `stops` are the numbers of bytes after which successive answers break off; None: never.

    `requests` keeps each request's Range header. A `stalled` answer does not break off but falls silent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.stops, self.stalled, self.location = DATA, '"1"', [], False, None
        self.pause, self.length, self.requests, self.released = 0, True, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.requests.append(asked)
        body = server.body
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            return self.end_headers()
        if self.path == "/absent.bin":
            return self.send_error(404)
        start = 0
        if asked and self.headers["If-Range"] == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.etag)
        if server.length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = server.stops.pop(0) if server.stops else None
        for at in range(start, len(body) if stop is None else stop, 100_000):
            self.wfile.write(body[at : min(at + 100_000, stop or len(body))])
            time.sleep(server.pause)
        if stop is not None and server.stalled:
            server.released.wait(10)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVMIXER_CACHE", str(tmp_path / "cache"))
    with contextlib.closing(Server()) as server:
        server.close = server.server_close
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def left():
    folder = files.cache_dir() / "weights"
    return [path.name for path in folder.rglob("*")] if folder.exists() else []


def assert_refused(url, message, **options):
    with pytest.raises(DownloadError, match=message) as refusal:
        download(url, **options)
    assert "\n" not in str(refusal.value)
    assert left() == []


def assert_resumed(server, stops):
    """That each request after the first went on from close before where the answer before it broke off."""
    first, *others = server.requests
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert first is None
    assert len(starts) == len(stops)
    assert all(stop - 8192 <= start <= stop for start, stop in zip(starts, stops))


def test_a_file_is_downloaded_once(server, capsys):
    path = download(server.url)
    assert path.read_bytes() == DATA
    assert "weights.bin" in capsys.readouterr().err
    assert download(server.url) == path
    assert server.requests == [None]


def test_addresses_with_the_same_last_part_are_kept_apart(server):
    first, second = (download(server.url.replace("weights.bin", f"{part}/weights.bin")) for part in "ab")
    assert first != second


def test_a_download_that_breaks_off_is_resumed(server):
    server.stops = [1_000_000, 2_500_000]
    assert download(server.url).read_bytes() == DATA
    assert_resumed(server, [1_000_000, 2_500_000])
    assert len(left()) == 2


def test_an_interrupted_process_is_resumed_by_the_next(server, monkeypatch):
    server.stops, server.stalled = [1_000_000], True

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("keras_convmixer.weights.download.why", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(server.url, timeout=0.3)
    assert download(server.url).read_bytes() == DATA
    assert_resumed(server, [1_000_000])


def test_a_file_that_changed_meanwhile_is_not_glued_together(server):
    server.stops = [1_000_000]

    class Changing(list):
        def append(self, asked):
            super().append(asked)
            if asked:
                server.body, server.etag = DATA[::-1], '"2"'

    server.requests = Changing()
    assert download(server.url).read_bytes() == DATA[::-1]


def test_a_truncated_file_is_refused(server):
    server.stops = [1_000_000] * 20
    assert_refused(server.url, "stopped after|broke off")


def test_a_stalled_server_is_given_up(server):
    server.stops, server.stalled = [0] * 20, True
    assert_refused(server.url, "sent nothing for 0.3 seconds", timeout=0.3)


def test_a_missing_file_is_refused(server):
    assert_refused(server.url.replace("weights", "absent"), "answered 404 Not Found")


def test_a_server_that_is_not_there_is_said(server):
    server.server_close()
    assert_refused(server.url, "cannot be reached")


@pytest.mark.parametrize("location", ["http://example.org/weights.bin", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_away_from_https_is_refused(server, location):
    server.location = location
    assert_refused(server.url, f"redirected to {location}, which is not https")


def test_an_endless_redirect_is_refused(server):
    server.location = server.url
    assert_refused(server.url, "answered 302")


@pytest.mark.parametrize("url", ["http://example.org/a.pth", "http://localhost.example.org/a.pth", "ftp://a/b"])
def test_only_https_addresses_are_taken(url):
    with pytest.raises(DownloadError, match="only https"):
        download(url)


def test_content_that_is_not_weights_is_refused(server, tmp_path):
    server.body = b"<!DOCTYPE html><html>Please log in</html>"
    for name in ("model.safetensors", "model.pth.tar", "model.keras", "model.weights.h5"):
        with pytest.raises(OSError, match="nothing was kept") as refusal:
            create_model("convmixer_tiny", weights=server.url.replace("weights.bin", name))
        assert "\n" not in str(refusal.value)
    assert left() == []


def test_a_pinned_sum_is_checked(server):
    assert_refused(f"{server.url}#sha256={'0' * 64}", f"SHA-256 of what it gave is {SUM}")
    assert download(f"{server.url}#sha256={SUM}").read_bytes() == DATA
    with pytest.raises(DownloadError, match="has changed"):
        download(f"{server.url}#sha256={'0' * 64}")
    with pytest.raises(DownloadError, match="64 hexadecimal digits"):
        download(f"{server.url}#md5=1")


def test_the_sum_of_the_first_download_is_checked_ever_after(server):
    path = download(server.url)
    path.write_bytes(DATA[:-1])
    with pytest.raises(DownloadError, match="has changed"):
        download(server.url)
    path.unlink()
    server.body = DATA[::-1]
    with pytest.raises(DownloadError, match=f"not {SUM}; nothing was kept"):
        download(server.url)
    server.body = DATA
    assert download(server.url).read_bytes() == DATA


def test_a_file_of_unknown_length_is_taken(server):
    server.length = False
    assert download(server.url).read_bytes() == DATA


def test_processes_that_ask_at_once_download_once(server):
    server.pause = 0.02
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        paths = pool.map(download, [server.url] * 3, chunksize=1)
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == DATA
    assert server.requests == [None]


def test_create_model_takes_an_address(server, tmp_path):
    model = create_model("convmixer_tiny")
    save_torch(model, tmp_path / "tiny.safetensors")
    server.body = (tmp_path / "tiny.safetensors").read_bytes()
    again = create_model("convmixer_tiny", weights=server.url.replace("weights.bin", "tiny.safetensors"))
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_published_weights_say_where_else_they_are(server, monkeypatch):
    sources = (server.url.replace("weights", "absent"), server.url)
    monkeypatch.setattr("keras_convmixer.variants.weight_sources", lambda name: sources)
    with pytest.raises(OSError, match=f"answered 404.*; {server.url} has the same weights.*weights=FILE"):
        create_model("convmixer_768_32", weights="imagenet")


def test_weights_fetched_by_hand_are_taken_from_where_the_error_says(server, tmp_path, monkeypatch):
    save_torch(create_model("convmixer_tiny"), tmp_path / "tiny.safetensors")
    server.location = "https://127.0.0.1:9/tiny.safetensors"
    monkeypatch.setattr("keras_convmixer.variants.weight_sources", lambda name: (server.url, server.url))
    with pytest.raises(OSError) as caught:
        create_model("convmixer_tiny", weights="imagenet")
    place = Path(re.search(r"Fetched by hand, it may lie at (\S+);", str(caught.value))[1])
    content = (tmp_path / "tiny.safetensors").read_bytes()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        create_model("convmixer_tiny", weights="imagenet")
    place.write_bytes(content)
    asked = len(server.requests)
    create_model("convmixer_tiny", weights="imagenet")
    assert len(server.requests) == asked
    place.write_bytes(content[:-1] + b"!")
    with pytest.raises(OSError, match="has changed: its SHA-256 is"):
        create_model("convmixer_tiny", weights="imagenet")
