"""Files of a folder served to a browser, with the headers that let the page use threads and nothing else."""

import contextlib
import errno
import http.server
import mimetypes
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from keras_convmixer.errors import UserError, one_line
from keras_convmixer.web.written import INDEX

# Before the system's own, which on Windows are what other programs made of them.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
# The page's own policy, as it stands in index.html, and what a page cannot say of itself.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Threads share memory, which a browser allows to pages that keep to themselves.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# seconds that a connection may say nothing
IDLE = 30


@contextlib.contextmanager
def serving(
    folder: Path, names: Iterable[str], host: str = "127.0.0.1", port: int = 8000
) -> Iterator[http.server.ThreadingHTTPServer]:
    """A context with a server of some of a folder's files. `serve_forever` runs it.

    It answers GET and HEAD for these files and nothing else, whatever a path says.

    Args:
        folder: where they lie. names: their paths in it. One that a link leads out of the folder is not served.
        host: the address to listen on. port: the port; 0 for any that is free, see the server's `url`.

    Raises:
        ValueError: the port is in use or none, or the host is none of this machine's.
    """
    if not 0 <= port < 2**16:  # which the system might take for another
        raise UserError(f"port must be from 0 to 65535, got {port}")
    root = folder.resolve()
    served = {name: folder / name for name in names if (folder / name).resolve().is_relative_to(root)}
    try:
        server = _Server(served, host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(_why_not(error, host, port)) from None
    with server:
        yield server


class _Server(http.server.ThreadingHTTPServer):
    # On Windows it would let two programs have the same port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, served, host, port):
        self.served = served
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)

    @property
    def url(self):
        """The page's address, on this machine where it listens on all of its addresses."""
        host, port = self.server_address[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def handle_error(self, request, client_address):
        """A browser that goes away in the middle of a file is no fault."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE

    def do_GET(self):
        path = self._begin()
        if path:
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile)

    def do_HEAD(self):
        self._begin()

    def refuse(self):
        self._plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_TRACE = refuse

    def version_string(self):
        return "convmixer"

    def log_message(self, *arguments):
        """Says nothing: the terminal is for the page's address."""

    def _begin(self):
        """Answers with the headers of the file that is asked for. Returns its path, None where there is none."""
        name = unquote(urlsplit(self.path).path).removeprefix("/") or INDEX
        path = self.server.served.get(name)
        try:
            size = path.stat().st_size if path else None
        except OSError:
            size = None
        if size is None:
            return self._plain(HTTPStatus.NOT_FOUND)
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._head(HTTPStatus.OK, {"Content-Type": kind, "Content-Length": str(size)})
        return path

    def _plain(self, status, headers=None):
        """Answers with a line and closes, since what came with the request was not read."""
        body = b"" if self.command == "HEAD" else f"{status.value} {status.phrase}\n".encode()
        self.close_connection = True
        common = {"Content-Type": TYPES[".txt"], "Content-Length": str(len(body)), "Connection": "close"}
        self._head(status, common | (headers or {}))
        self.wfile.write(body)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in (headers | HEADERS).items():
            self.send_header(name, value)
        self.end_headers()


def _why_not(error, host, port):
    if isinstance(error, UnicodeError):  # no name of a host can be written so, "192.168..1" for instance
        return f"{host} is no address: 127.0.0.1 is for this machine alone, 0.0.0.0 for all others too"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: give another with --port, or --port 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is not for everyone: give one from 1024 with --port"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: 127.0.0.1 is for itself alone, 0.0.0.0 for all others too"
    return f"{host}:{port} cannot be listened on: {one_line(error)}"
