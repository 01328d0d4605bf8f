"""A hook of mkdocs: the site's pages that are not files of docs/, and links that leave docs/.

Such pages are some other files of the repository, each command's `--help`, the public names, and the citation.
"""

import argparse
import os
import posixpath
import re
from pathlib import Path
from unittest import mock

import yaml
from mkdocs.structure.files import File

import keras_convmixer
from keras_convmixer.cli.main import parser

ROOT = Path(__file__).parents[2]
# A page → the file of the repository that it shows.
SHOWN = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "saved_models.md": "saved_models/README.md",
    "security.md": "SECURITY.md",
}
# A file outside docs/ → the page that a link to it leads to.
_PAGES = {source: page for page, source in SHOWN.items()} | {"README.md": "index.md"}
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_files(files, config):
    """Adds the generated pages."""
    # Code below an item of a list begins at six spaces in CommonMark, as on GitHub, and at eight for mkdocs.
    generated = {page: re.sub(r"(?m)^ {6}", " " * 8, _read(source)) for page, source in SHOWN.items()}
    generated |= {"commands.md": commands(), "api.md": api(), "citation.md": citation()}
    for page, content in generated.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Has links to what is no page of the site lead to the repository."""
    folder = posixpath.dirname(SHOWN.get(page.file.src_uri, "docs/"))

    def followed(link):
        target, anchor = posixpath.normpath(posixpath.join(folder, link["path"])), link["anchor"] or ""
        if target in _PAGES or target.startswith("docs/"):
            return _PAGES.get(target, target.removeprefix("docs/")) + anchor
        if (ROOT / target).exists():
            return f"{config.repo_url}/blob/HEAD/{target}{anchor}"
        return link[0]  # mkdocs complains of it, unless it is no link but code

    return _LINK.sub(followed, markdown)


def commands():
    """The page of the command line: what each command's `--help` prints."""
    head = "# Commands\n\nEach command prints its own part of this page with `--help`.\n"
    with mock.patch.dict(os.environ, COLUMNS="82"):
        parts = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in _helps(parser())]
    return "\n".join([head, *parts])


def api():
    """The page of the public names, whose docstrings mkdocstrings puts in."""
    head = "# Python\n\nThe public names of `keras_convmixer`, which loads nothing until one of them is used.\n"
    names = sorted(keras_convmixer.__all__, key=str.lower)
    return "\n".join([head, *(f"::: keras_convmixer.{name}\n" for name in names)])


def citation():
    """The page about citing this package and the paper, from CITATION.cff."""
    about = yaml.safe_load(_read("CITATION.cff"))
    (paper,) = about["references"]
    software = {
        "title": f"{{{about['title']}}}: {about['abstract']}",
        "author": " and ".join(f"{{{author['name']}}}" for author in about["authors"]),
        "url": about["repository-code"],
    }
    article = {
        "title": paper["title"],
        "author": " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]),
        "year": paper["year"],
        "url": paper["url"],
    }
    entries = _bibtex("software", "keras_convmixer", software), _bibtex("article", "convmixer", article)
    blocks = "\n".join(f"```bibtex\n{entry}```\n" for entry in entries)
    return f"# Citation\n\n{about['message']}\n\n{blocks}\nBoth are in [CITATION.cff](../CITATION.cff).\n"


def _read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def _helps(command):
    """The name and the help of a command's parser and of all below it."""
    yield command.prog, command.format_help()
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _helps(below)


def _bibtex(kind, key, fields):
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}}}\n"
