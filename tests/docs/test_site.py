"""The documentation site: built without a warning (which checks its links), complete, and without foreign scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import medical_vqa
from medical_vqa.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
GENERATED = ("reference/cli.md", "reference/recipes.md", "reference/file-formats.md", "reference/http.md")


def navigation(entries):
    """The pages of the navigation."""
    for entry in entries:
        for target in entry.values():
            yield from navigation(target) if isinstance(target, list) else [target]


NAVIGATION = list(navigation(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))


def test_every_page_is_in_the_navigation_or_listed_by_the_index_of_its_folder():
    decisions = (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8")
    for page in PAGES:
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name in NAVIGATION or f"]({page.name})" in decisions, name


def test_every_page_of_the_navigation_exists_or_is_generated():
    existing = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES}
    assert [page for page in NAVIGATION if page not in existing and page not in GENERATED] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=str)
def test_every_relative_link_leads_to_a_file(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.partition("#")[0]
        if path and not re.match(r"\w+:", path):
            resolved = (page.parent / path).resolve()
            generated = any(resolved == ROOT / "docs" / name for name in GENERATED)
            assert resolved.exists() or generated, f"{page}: {target}"


def test_the_api_page_names_the_public_functions_and_types():
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: medical_vqa\.(\w+)$", page, re.M)) == sorted(medical_vqa.__all__)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_another_host(tmp_path):
    for name in ("docs", "src", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    shutil.copyfile(ROOT / "zensical.toml", tmp_path / "zensical.toml")
    for command in (["tools/make_reference.py"], ["-m", "zensical", "build", "--clean", "--strict"]):
        result = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    site = tmp_path / "site"
    loaded = re.compile(r'<(?:script|img|link rel="(?:stylesheet|icon|preconnect)")[^>]*(?:src|href)="(https?:[^"]+)"')
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert loaded.findall(text) == [], page
        assert 'data-md-component="source"' not in text, "the figures of a repository are read from another host"
    api = (site / "reference/api/index.html").read_text(encoding="utf-8")
    assert all(f'id="medical_vqa.{name}"' in api for name in ("load", "score", "Answer", "Model"))
    commands = (site / "reference/cli/index.html").read_text(encoding="utf-8")
    assert all(f'id="medical-vqa-{name}"' in commands for name in cli.commands)
