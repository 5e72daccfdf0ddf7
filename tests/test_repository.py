"""What surrounds the code: workflows, forms, citation, versions, and that CI runs what developers run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": [".github/workflows/*.yml"],
    "vendor.dependabot": [".github/dependabot.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/[!c]*.yml"],
    "vendor.citation-file-format": ["CITATION.cff"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_for_github_follow_its_published_schemas(schema):
    files = [path for pattern in SCHEMAS[schema] for path in sorted(ROOT.glob(pattern))]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_steps_of_a_workflow_call_make_targets_and_scripts_that_exist(path):
    steps = [
        step["run"]
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    targets = {target for line in steps for target in re.findall(r"\bmake (\w+)", line)}
    assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for target in targets), targets
    assert all((ROOT / script).is_file() for line in steps for script in re.findall(r"\b(tools/\S+)", line))


def test_ci_tests_every_python_that_the_package_declares():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    prefix = "Programming Language :: Python :: "
    declared = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if re.match(prefix + r"3\.\d+$", line)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == declared
    assert {system.partition("-")[0] for system in jobs["smoke"]["strategy"]["matrix"]["os"]} == {
        "ubuntu", "macos", "windows",
    }  # fmt: skip


def test_the_release_publishes_without_a_stored_token():
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    publish = yaml.safe_load(text)["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in text and "password" not in text


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", changelog, re.M)
    assert headings[0][0] == "Unreleased"
    assert headings[1] == (PROJECT["version"], f" - {citation['date-released']}")


def test_every_extra_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme[readme.index("Further extras:") : readme.index("## From the command line")]
    extras = set(re.findall(r"`([\w-]+)`", listed))
    assert extras and extras <= set(PROJECT["optional-dependencies"])


def test_the_hooks_run_tools_that_the_checks_run_too():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    for hook in hooks:
        tool = hook["entry"].removeprefix(".venv/bin/").split()
        name = tool[1] if tool[0] == "python" else " ".join(tool[:2]).replace(" --fix", "")
        assert name in MAKEFILE, name
