"""Files from the network: whole, checked and fetched once."""

import hashlib
import posixpath
import re
import shutil
from urllib.parse import unquote, urljoin, urlsplit

import requests
from tqdm.auto import tqdm

from keras_convmixer import files

MOST_REDIRECTS = 5
MOST_RESUMPTIONS = 5
# characters of an address's hash before the name of its file
KEY_LENGTH = 16


class DownloadError(OSError):
    """A download that did not succeed. The message says in one line why; nothing of it is left behind."""


def download(url, *, check=None, timeout=30):
    """The path of a cached copy of `url`, downloaded if need be, with a progress bar on stderr.

    The SHA-256 sum of the file is recorded when it is first downloaded and compared at every later use. To pin it
    from the start, end the address in `#sha256=` and the sum. A download that was interrupted is resumed by the
    next one where the server can say that the file is still the same. Of several processes that ask for a file at
    the same time, one downloads it and the others wait.

    Args:
        url: an https:// address, or an http:// one on this machine. Redirects must keep to that.
        check: called with the path of the downloaded file before it is accepted; raises ValueError to refuse it.
        timeout: seconds without a byte after which the server is given up.

    Raises:
        DownloadError (an OSError): the address is refused, the server does not answer, answers with an error or
            stops half way, the content is refused, or its sum is not the one recorded or pinned.
    """
    url, _, fragment = url.partition("#")
    _check_address(url)
    pinned = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not pinned:
        raise DownloadError(f"{url}: after # there must be sha256= and 64 hexadecimal digits, not {fragment!r}")
    path = place(url)
    record = path.with_name(f"{path.name}.sha256")

    with files.locked(files.cache_dir() / "locks" / path.name[:KEY_LENGTH]):
        recorded = record.read_text().strip() if record.exists() else None
        expected = pinned[1].lower() if pinned else recorded
        if path.exists():
            found = files.sha256(path)
            if expected not in (None, found):
                raise DownloadError(
                    f"{path} has changed: its SHA-256 is {found}, not {expected}; delete it and retry"
                )
            if recorded is None and check:  # it was put there by hand
                check(path)
        else:
            found = _download(url, path, expected, check, timeout)
        if recorded != found:
            files.write_text(record, f"{found}\n")
    return path


def place(url):
    """Where in the cache the file of an address lies, or would lie. One put there by hand is as good."""
    name = re.sub(r"[^\w.-]", "_", unquote(posixpath.basename(urlsplit(url).path))).lstrip(".") or "weights"
    key = hashlib.sha256(url.encode()).hexdigest()[:KEY_LENGTH]
    return files.cache_dir() / "weights" / f"{key}-{name}"


def _download(url, path, expected, check, timeout):
    """Fetches a file into its place and returns its sum."""
    partial = path.parent / f"partial-{path.name}"
    partial.mkdir(parents=True, exist_ok=True)
    # The name is kept: a file of weights is known by its suffix too.
    whole = partial / path.name
    try:
        _fetch(url, whole, partial / "version", timeout)
        found = files.sha256(whole)
        if expected not in (None, found):
            raise DownloadError(f"{url}: the SHA-256 of what it gave is {found}, not {expected}; nothing was kept")
        if check:
            try:
                check(whole)
            except ValueError as error:
                reason = str(error).replace(str(whole), "the file")
                raise DownloadError(f"{url} did not give what it should; nothing was kept: {reason}") from error
        whole.replace(path)
    except OSError:
        shutil.rmtree(partial)
        raise
    shutil.rmtree(partial)
    return found


def _fetch(url, whole, version, timeout):
    """Writes the file to `whole`, going on from what is there; `version` keeps what it is a part of."""
    resumptions = 0
    with requests.Session() as session:
        session.trust_env = not is_loopback(url)
        while True:
            start = whole.stat().st_size if whole.exists() and version.exists() else 0
            total, _, validator = version.read_text().partition("\n") if start else ("", "", "")
            if start and start == int(total):
                return
            try:
                with _request(session, url, start, validator, timeout) as response:
                    total = _receive(response, whole, version, start, total)
                if total in ("", str(whole.stat().st_size)):
                    return
                problem = f"it stopped after {whole.stat().st_size} of {total} bytes"
            except requests.RequestException as error:
                problem = why(error, timeout)
            # Going on is worth it only where the last try brought something and the server can resume.
            progressed = version.exists() and whole.exists() and whole.stat().st_size > start
            resumptions += 1
            if not progressed or resumptions > MOST_RESUMPTIONS:
                raise DownloadError(f"{url}: {problem}; nothing was kept")


def _request(session, url, start, validator, timeout):
    # Identity: a compressed transfer could be neither counted nor resumed.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and validator:
        # If the file is another one by now, the server answers with all of it.
        headers["If-Range"] = validator
    address = url
    for _ in range(MOST_REDIRECTS + 1):
        response = session.get(address, headers=headers, stream=True, timeout=timeout, allow_redirects=False)
        if not response.is_redirect:
            break
        response.close()
        address = urljoin(address, response.headers["Location"])
        _check_address(address, redirected_from=url)
    if response.status_code != 200 and not (start and response.status_code == 206):
        response.close()
        answer = f"{response.status_code} {response.reason}"
        raise DownloadError(f"{url}: the server answered {answer}; nothing was kept")
    return response


def _receive(response, whole, version, start, total):
    """Writes the body to `whole` and returns the size that the whole file should have, "" if that is unknown."""
    if response.status_code == 206:
        answered = response.headers.get("Content-Range", "")
        if not answered.startswith(f"bytes {start}-") or not answered.endswith(f"/{total}"):
            raise DownloadError(f"{response.url} went on with another file or part ({answered}); nothing was kept")
    else:
        start = 0
        total = response.headers.get("Content-Length", "")
        version.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)
        if total.isdecimal():
            etag = response.headers.get("ETag", "")
            # A weak tag promises the same meaning, not the same bytes.
            validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
            version.write_text(f"{total}\n{validator}")
    size = int(total) if total.isdecimal() else None
    bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=whole.name.partition("-")[2])
    with bar, open(whole, "ab") as file:
        # Small pieces: one that a broken connection leaves unfinished is lost.
        for chunk in response.iter_content(2**13):
            file.write(chunk)
            bar.update(len(chunk))
    return total


def why(error, timeout):
    """What to say of an error of requests."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"the server sent nothing for {timeout} seconds"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be verified"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return f"the server cannot be reached ({type(error).__name__})"


def _check_address(url, redirected_from=None):
    if urlsplit(url).scheme == "https" or is_loopback(url):
        return
    if redirected_from:
        raise DownloadError(f"{redirected_from}: redirected to {url}, which is not https; nothing was kept")
    raise DownloadError(f"{url}: only https addresses are downloaded from")


def is_loopback(url):
    """Whether an address is an http:// one on this machine, which no proxy can reach."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
