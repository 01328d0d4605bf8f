"""The files that GitHub and PyPI read agree with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = ROOT / ".github" / "workflows"


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_it_must(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    granted = [job["permissions"] for job in workflow["jobs"].values() if "permissions" in job]
    assert granted == ([{"id-token": "write"}] if path.name == "release.yml" else [])


def test_every_python_version_is_tested():
    tested = read(WORKFLOWS / "test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    assert tested == [one.removeprefix(prefix) for one in PROJECT["classifiers"] if one.startswith(prefix)]
    first, after = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert tested == [f"3.{minor}" for minor in range(int(first), int(after))]


def test_what_is_published_was_tested():
    jobs = read(WORKFLOWS / "release.yml")["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert jobs["publish"]["needs"] == ["test", "build"]
    assert jobs["publish"]["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")


def test_the_citation_is_of_this_project_and_the_paper():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2201.09792"
    assert [author["family-names"] for author in paper["authors"]] == ["Trockman", "Kolter"]
