"""README.md and the pages of docs/, done by a reader who types all that they say, from top to bottom.

Each page has a folder of its own, with what readers bring in it. What is run in the place of a line, and what is
not run at all, is in stand_ins.py. `convmixer` runs within this process, since each start of TensorFlow takes
seconds; servers, scripts, and the processes that a command starts itself, have their own.
"""

import contextlib
import functools
import glob
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import traceback
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from code_blocks import ROOT, steps, words
from packaging.requirements import Requirement
from stand_ins import BROUGHT, INSTEAD, MADE_BY, NOT_RUN, OPTIONS_ONLY, bring

from keras_convmixer.cli import main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STEPS = {path.relative_to(ROOT).as_posix(): steps(path.read_text(encoding="utf-8")) for path in PAGES}
PROGRAMS = {
    "python": [sys.executable],
    "convmixer": [sys.executable, "-m", "keras_convmixer"],
    "tensorboard": [sys.executable, "-m", "tensorboard.main"],
}


def reason_not_to_run(kind, text):
    """Why a step is not run, or None."""
    parts = text.splitlines() if kind == "python" else [text]
    return next((NOT_RUN[part] for part in parts if part in NOT_RUN), None)


def instead(text):
    """What is run in the place of a line or a block."""
    for old, new in INSTEAD:
        text = text.replace(old, new)
    return text


def follow(page, namespace, address):
    """Does the steps of a page in the working directory. One that fails does not keep the next from being tried.

    Returns:
        What went wrong, a text for each step that failed.
    """
    wrong = []
    for kind, text in page:
        if reason_not_to_run(kind, text):
            continue
        try:
            doing = run_python if kind == "python" else runner(text)
            doing(instead(text).replace("ADDRESS", address), namespace)
        except Exception:
            wrong.append(f"{text}\n{traceback.format_exc(limit=-2)}")
    return wrong


def runner(line):
    """The function that runs a line of a shell, by how it begins."""
    found = [function for beginning, function in RUNNERS.items() if re.match(beginning, line)]
    assert found, f"{line!r} is no command that is known here: run it, or say in stand_ins.NOT_RUN why not"
    return found[0]


def run_python(source, namespace):
    exec(compile(source, "<the page>", "exec"), namespace)


def run_convmixer(line, _):
    """Within this process. A photograph is on stdin, and `*` is what a shell makes of it."""
    given = [sorted(glob.glob(word)) if "*" in word else [word] for word in words(line)[1:]]
    assert all(given), "nothing matches"
    given = list(itertools.chain(*given))
    out, err = io.StringIO(), io.StringIO()
    with Path("photo.jpg").open("rb") as photo, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(photo))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(given)
            except SystemExit as end:
                code = end.code or 0
    if code in (130, 143):  # it was these tests that were told to stop
        raise KeyboardInterrupt
    assert code == 0, f"exit code {code}: {err.getvalue()[-2000:]}"
    for option, path in itertools.pairwise(given):
        assert option not in ("--out", "--workdir", "--per-image") or Path(path).exists(), f"no {path}"


def run_server(line, _):
    """Started, asked for the page that it names, and stopped."""
    server = subprocess.Popen(
        program(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    )
    limit = threading.Timer(120, server.kill)
    limit.start()
    said = []
    try:
        for line in server.stdout:
            said.append(line)
            if address := re.search(r"http://[^\s)]+", line):
                with urllib.request.urlopen(address[0], timeout=60) as answer:
                    assert answer.status == 200
                return
        raise AssertionError("".join(said))
    finally:
        limit.cancel()
        server.terminate()
        server.communicate()


def run_script(line, _):
    if line in OPTIONS_ONLY:
        script, *options = words(line)[1:]
        shown = _output([sys.executable, script, "--help"])
        for option in options:
            assert not option.startswith("--") or option in shown, f"{script} has no {option}"
    else:
        _output(program(line))


def run_make(line, _):
    """What it would do, since it makes a virtual environment."""
    _output(["make", "--dry-run", "--directory", str(ROOT), *words(line)[1:]])


def run_pip(line, _):
    """Not over the network: whether our extras of these names are there."""
    options = {"-e", "install", "pip", "python", "-m"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    named = [word for word in words(line) if word not in options]
    assert named
    for word in named:
        requirement = Requirement(re.sub(r"^\.", "keras-convmixer", word))
        if requirement.name.replace("_", "-") == "keras-convmixer":
            assert requirement.extras <= extras.keys()


RUNNERS = {
    "convmixer demo|tensorboard |python -m http.server ": run_server,
    "convmixer ": run_convmixer,
    "pip install |python -m pip install ": run_pip,
    "make ": run_make,
    "python (benchmarks|tests|examples)/": run_script,
}


def program(line):
    first, *others = words(line)
    return [*PROGRAMS[first], *others]


def _output(command):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(), check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def _environment():
    return os.environ | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def address():
    """Of a photograph on a server of this machine, as it lies in the working directory."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/photo.jpg"
        server.shutdown()


@pytest.fixture(scope="module")
def made(tmp_path_factory, address):
    """A function from a name in MADE_BY to its path. What has been made once is not made again."""
    folder = tmp_path_factory.mktemp("made")
    bring(folder)

    @functools.cache
    def make(name):
        with contextlib.chdir(folder):
            wrong = follow(MADE_BY[name], {}, address)
        assert not wrong, "\n".join(wrong)
        return folder / name

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in STEPS.items() if page])
def test_all_that_a_page_says_can_be_done(name, made, address, tmp_path):
    bring(tmp_path)
    for place, what in BROUGHT.get(name, {}).items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if made(what).is_dir() else shutil.copy)(made(what), tmp_path / place)
    with contextlib.chdir(tmp_path):
        wrong = follow(STEPS[name], {}, address)
    assert not wrong, "\n".join(wrong)


def test_every_step_is_known():
    for page in STEPS.values():
        for kind, text in page:
            assert kind == "python" or reason_not_to_run(kind, text) or runner(text)


def test_what_is_replaced_or_left_out_still_stands_on_a_page():
    texts = [text for page in [*STEPS.values(), *MADE_BY.values()] for _, text in page]
    lines = {line for text in texts for line in text.splitlines()}
    assert [line for line in [*NOT_RUN, *OPTIONS_ONLY] if line not in lines] == []
    assert [old for old, _ in INSTEAD if not any(old in text for text in texts)] == []
    for name, places in BROUGHT.items():
        assert [place for place in places if not any(place in text for _, text in STEPS[name])] == []
