"""A hook of mkdocs: the site's pages that are not files of docs/, and links that leave docs/.

Generated are the pages of other files of the repository, the `--help` of every command, and the citation.
"""

import argparse
import os
import posixpath
import re
import sys
from pathlib import Path
from unittest import mock

import yaml
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# A file of the repository → the page that it is.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "saved_models/README.md": "saved_models.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_files(files, config):
    """Adds the generated pages."""
    # Code below an item of a list begins at six spaces in CommonMark, as on GitHub, and at eight for mkdocs.
    eight = {page: re.sub(r"(?m)^ {6}", " " * 8, _read(source)) for source, page in PAGES.items()}
    generated = {page: text for page, text in eight.items() if page != "index.md"}
    generated |= {"commands.md": commands(), "citation.md": citation()}
    for page, content in generated.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Has links to what is no page of the site lead to the repository."""
    source = _SOURCES.get(page.file.src_uri)
    folder = posixpath.dirname(source) if source and page.file.src_uri != "index.md" else "docs"

    def followed(link):
        target = posixpath.normpath(posixpath.join(folder, link["path"]))
        anchor = link["anchor"] or ""
        if not (ROOT / target).exists():
            return link[0]  # mkdocs complains of it, unless it is no link but code
        if target.startswith("docs/") or target in PAGES:
            return PAGES.get(target, target.removeprefix("docs/")) + anchor
        return f"{config.repo_url}/blob/HEAD/{target}{anchor}"

    return _LINK.sub(followed, markdown)


def commands():
    """The page of the command line: what each command's `--help` prints."""
    with mock.patch.object(sys, "path", [str(ROOT), *sys.path]):
        from keras_convmixer.cli.main import parser
    head = "# Commands\n\nEach command prints its own part of this page with `--help`.\n"
    with mock.patch.dict(os.environ, COLUMNS="82"):
        parts = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in _helps(parser())]
    return "\n".join([head, *parts])


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


def _helps(parser):
    """The name and the help of a command and of all below it."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _helps(below)


def _bibtex(kind, key, fields):
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}}}\n"
