"""The server of the page: what it gives, and that it gives nothing else."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from keras_convmixer.cli import main
from keras_convmixer.errors import UserError
from keras_convmixer.web import written
from keras_convmixer.web.server import serving

SECRET = b"not to be served"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    room = tmp_path_factory.mktemp("served")
    (room / "secret").write_bytes(SECRET)
    folder = room / "page"
    (folder / "wasm").mkdir(parents=True)
    for name in ("index.html", "page.js", "page.css", "icon.svg", "page.json", "labels.txt", "model.tflite"):
        (folder / name).write_text(name)
    (folder / "wasm" / "a.wasm").write_bytes(b"\0asm")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with running(folder) as server:
        yield server.server_address


@contextlib.contextmanager
def running(folder, names=None):
    below = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    with serving(folder, below if names is None else names, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(address, path, method="GET", body=None):
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?again#there", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/page.json", "application/json"),
        ("/labels.txt", "text/plain; charset=utf-8"),
        ("/wasm/a.wasm", "application/wasm"),
        ("/model.tflite", "application/octet-stream"),
    ],
)
def test_every_file_has_its_type_and_the_headers(address, folder, path, kind):
    response, content = ask(address, path)
    name = path.partition("?")[0].strip("/") or "index.html"
    assert (response.status, content) == (200, (folder / name).read_bytes())
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'"]
    head, nothing = ask(address, path, "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_get_and_head_is_answered(address, method):
    response, _ = ask(address, "/page.js", method, body=b"x" * 1000)
    assert response.status == (501 if method == "BREW" else 405)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_what_lies_beside_the_page_is_not_served_nor_what_a_link_leads_to(tmp_path):
    (tmp_path / "outside").write_bytes(SECRET)
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("page")
    (folder / "recipe.yaml").write_bytes(SECRET)
    (folder / "link.tflite").symlink_to(tmp_path / "outside")
    (folder / "page.json").write_text('{"forms": [{"file": "link.tflite"}]}')
    with running(folder, written.names(folder)) as server:
        found = {name: ask(server.server_address, f"/{name}") for name in ("", "recipe.yaml", "link.tflite")}
    assert [response.status for response, _ in found.values()] == [200, 404, 404]
    assert all(SECRET not in content for _, content in found.values())


@pytest.mark.parametrize(
    "about", ["{}", "[]", "{", '{"forms": [{"file": 5}]}', '{"forms": [{"file": "../secret"}]}']
)
def test_a_page_that_names_no_files_is_refused(folder, tmp_path, about):
    (tmp_path / "page.json").write_text(about)
    with pytest.raises(UserError, match="is not what export writes"):
        written.names(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/wasm/../../secret",
        "//../secret",
        "/..\\secret",
        "/wasm/a.wasm/../../../secret",
        "/./page.js",
        "/wasm",
        "/wasm/",
        "/page.js%00.html",
        "/{secret}",
        "http://127.0.0.1/../secret",
    ],
)
def test_no_path_leads_out_of_the_folder(address, folder, path):
    response, content = ask(address, path.replace("{secret}", str(folder.parent / "secret")))
    assert response.status == 404
    assert SECRET not in content


def test_a_file_that_is_gone_is_not_found(folder, tmp_path):
    (tmp_path / "index.html").write_text("here")
    with running(tmp_path) as server:
        (tmp_path / "index.html").unlink()
        assert ask(server.server_address, "/")[0].status == 404
        (tmp_path / "new.txt").write_text("not there when it began")
        assert ask(server.server_address, "/new.txt")[0].status == 404


def test_a_request_that_is_none_does_not_end_it(address):
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 400 " in connection.recv(4096)
    assert ask(address, "/")[0].status == 200


def test_it_listens_to_this_machine_alone(folder):
    with serving(folder, [], port=0) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


def test_on_all_addresses_it_names_one_that_a_browser_opens(folder):
    with serving(folder, [], "0.0.0.0", 0) as server:
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.mark.parametrize(
    "host, port, why",
    [
        ("127.0.0.1", 70_000, "port must be from 0 to 65535"),
        ("203.0.113.7", 0, "no address of this machine"),
        ("192.168..1", 0, "is no address"),
    ],
)
def test_where_it_cannot_listen_is_said(folder, host, port, why):
    with pytest.raises(UserError, match=why), serving(folder, [], host, port):
        pass


def test_a_port_in_use_is_one_line(address, folder, capsys):
    (folder / "page.json").write_text('{"forms": [{"file": "model.tflite"}]}')
    assert main(["demo", str(folder), "--port", str(address[1])]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"port {address[1]} of 127.0.0.1 is in use: give another with --port" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command_serves_until_it_is_told_to_end(folder, tmp_path, sent, code):
    (folder / "page.json").write_text('{"forms": [{"file": "model.tflite"}]}')
    command = [sys.executable, "-m", "keras_convmixer", "demo", str(folder), "--port", "0", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell runs in the background ignores SIGINT, and so would what it starts.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    signal.signal(signal.SIGINT, kept)
    try:
        url = json.loads(done.stdout.readline())["url"]
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.read() == b"index.html"
        done.send_signal(sent)
        _, err = done.communicate(timeout=20)
    finally:
        done.kill()
    assert (done.returncode, err.strip()) == (code, "")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)
