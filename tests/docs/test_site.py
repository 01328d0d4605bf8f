"""The documentation's site: built without a warning, complete, and with nothing in it loaded from elsewhere."""

import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import keras_convmixer
from keras_convmixer.cli.main import SUBCOMMANDS

ROOT = Path(__file__).parents[2]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
IN_REPOSITORY = f"{URLS['Homepage']}/blob/HEAD/"
LOADING = {"src", "srcset", "poster", "data", "background", "xlink:href"}
NOT_LOADED = {"canonical", "next", "prev", "license"}
ELSEWHERE = re.compile(r"(https?:)?//")


class Page(HTMLParser):
    """What a page loads, where its links lead, and the ids in it."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.links, self.ids = [], [], set()
        self.feed(html)
        self.loads += re.findall(r"url\(\s*['\"]?([^'\")]+)", html)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id"))
        self.loads += [value for name, value in values.items() if name in LOADING]
        if tag == "link" and values.get("rel") not in NOT_LOADED:
            self.loads.append(values["href"])
        if tag == "a":
            self.links.append(values.get("href", ""))


def build(folder, out):
    """Builds the site of a folder's mkdocs.yml as `make site` does. With --quiet no warning would be an error."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built anew."""
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {
        str(path.relative_to(site).parent): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }


def test_what_leads_nowhere_is_an_error(tmp_path):
    own = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "nav": ["index.md", "absent.md"],
        "plugins": [],
        "hooks": [],
        "theme": {"custom_dir": str(ROOT / "docs" / "theme")},
    }
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(own))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[a](gone.md) [b](#nowhere) [c](/root.md)\n")
    (tmp_path / "docs" / "orphan.md").write_text("# Not in the navigation\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for name in ("absent.md", "gone.md", "#nowhere", "/root.md", "orphan.md"):
        assert re.search(rf"WARNING.*(\n  .*)*{re.escape(name)}", done.stderr), f"{name}: {done.stderr}"


def test_what_would_be_loaded_from_elsewhere_is_found():
    page = Page(
        '<link rel="canonical" href="https://own/"><link rel="preconnect" href="https://fonts">'
        "<img src=//cdn/a.png><a href='https://paper'></a><script src='https://js'></script><style>a {background: url('http://b')}</style>"
    )
    assert [one for one in page.loads if ELSEWHERE.match(one)] == [
        "https://fonts",
        "//cdn/a.png",
        "https://js",
        "http://b",
    ]


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert len(pages) > 20
    for name, page in pages.items():
        assert any(one.endswith(".css") for one in page.loads), name
        assert [one for one in page.loads if ELSEWHERE.match(one)] == [], name
    for path in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]+", path.read_text(encoding="utf-8"))
        assert found == [], path.name


def test_the_theme_does_not_ask_for_the_stars_of_the_repository(site):
    assert 'data-md-component="source"' not in (site / "index.html").read_text(encoding="utf-8")


def test_links_into_the_repository_lead_to_files(pages):
    inside = {link for page in pages.values() for link in page.links if link.startswith(IN_REPOSITORY)}
    assert f"{IN_REPOSITORY}examples/ray_predict.py" in inside
    for link in inside:
        assert (ROOT / link.removeprefix(IN_REPOSITORY).partition("#")[0]).exists(), link


def test_every_command_and_every_public_name_has_its_place(pages):
    commands = {f"convmixer-{module.__name__.rpartition('.')[2]}" for module in SUBCOMMANDS}
    assert commands | {"convmixer-recipe-show"} <= pages["commands"].ids
    assert {f"keras_convmixer.{name}" for name in keras_convmixer.__all__} <= pages["api"].ids


def test_other_files_of_the_repository_are_pages(site, pages):
    assert "releasing" in pages["contributing"].ids
    assert "supported-versions" in pages["security"].ids
    assert any(name.startswith("010") for name in pages["changelog"].ids if name)
    assert "../deployment/#full-int8-without-loss" in pages["changelog"].links
    citation = (site / "citation" / "index.html").read_text(encoding="utf-8")
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"][0]
    assert paper["title"] in citation
    assert paper["url"] in citation


def test_the_site_and_the_repository_have_the_addresses_of_the_package():
    lines = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").splitlines()
    assert f"site_url: {URLS['Documentation']}" in lines
    assert f"repo_url: {URLS['Homepage']}" in lines
