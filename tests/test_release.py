"""The files that GitHub and PyPI read agree with pyproject.toml."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = ROOT / ".github" / "workflows"


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# The rights of single jobs, beyond reading the repository.
GRANTED = {"release.yml": {"publish": {"id-token": "write"}, "site": {"pages": "write", "id-token": "write"}}}


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_it_must(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert granted == GRANTED.get(path.name, {})


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


@pytest.mark.parametrize("address, published", [("github.com/OWNER/x", False), ("github.com/ada/x", True)])
def test_nothing_is_published_that_names_a_placeholder(address, published, tmp_path):
    (look,) = [
        s["run"] for s in read(WORKFLOWS / "release.yml")["jobs"]["build"]["steps"] if "OWNER" in s.get("run", "")
    ]
    (tmp_path / "README.md").write_text(f"https://{address}")
    for command in ("git init --quiet", "git add README.md"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    done = subprocess.run(["bash", "-c", look], cwd=tmp_path, capture_output=True)
    assert (done.returncode == 0) == published


def test_the_site_is_of_what_is_published():
    release, docs = read(WORKFLOWS / "release.yml"), read(WORKFLOWS / "docs.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" as true
    assert release["jobs"]["docs"]["uses"] == "./.github/workflows/docs.yml"
    assert release["jobs"]["site"]["needs"] == ["docs", "publish"]
    *_, build, upload = docs["jobs"]["build"]["steps"]
    assert build["run"] == "mkdocs build --strict"
    assert upload["if"] == "startsWith(github.ref, 'refs/tags/v')"


def test_the_tests_can_build_the_site():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["docs"]) <= set(extras["test"])


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
