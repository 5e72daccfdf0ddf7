"""The files of the page match what they are built from, so that nobody needs Node to use or test the package."""

import hashlib
from pathlib import Path

from medical_vqa.serving.page_files import FOLDER, PAGE_PATHS

WEB = Path(__file__).parents[2] / "web"
BUILT_FROM = ["build.mjs", "package-lock.json", "package.json"]


def source_digest() -> str:
    """SHA-256 over names and contents, as ``web/build.mjs`` computes it."""
    names = [path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*names, *BUILT_FROM]):
        digest.update(f"{name}\0".encode())
        digest.update((WEB / name).read_bytes())
    return digest.hexdigest()


def test_the_built_files_match_their_source():
    assert (FOLDER / "source.sha256").read_text().strip() == source_digest(), "run: cd web && npm ci && npm run build"


def test_every_path_without_key_is_a_built_file():
    names = {path.rpartition("/")[2] for path in PAGE_PATHS} - {"page"}
    assert {path.name for path in FOLDER.iterdir()} == names | {"index.html", "source.sha256"}


def test_the_page_loads_nothing_from_elsewhere():
    text = "".join((FOLDER / name).read_text() for name in ("index.html", "page.css"))
    assert "http://" not in text
    assert "https://" not in text
