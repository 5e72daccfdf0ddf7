"""Every snippet of the README and the documentation is executed, in the order of its page, or says why it is not.

A page is executed in a folder that holds the recipes, an image ``scan.png``, the image of the sample that it is a copy
of, and two small trained runs, ``runs/demo`` and ``runs/other``. What it trains for two epochs is as small. An HTML
comment before a fence marks what cannot run here, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_port

import medical_vqa as mv

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXECUTED_BY = {"docs/how-to/extend.md": "tests/test_extending.py"}
NOT_EXECUTED = {
    "CONTRIBUTING.md": 1,
    "README.md": 2,
    "docs/how-to/app.md": 2,
    "docs/how-to/deploy.md": 3,
    "docs/how-to/evaluate.md": 3,
    "docs/how-to/fine-tune.md": 4,
    "docs/how-to/other-tools.md": 2,
    "docs/how-to/remote-models.md": 1,
    "docs/how-to/series.md": 3,
    "docs/how-to/serve.md": 4,
    "docs/how-to/viewers.md": 1,
    "docs/index.md": 1,
    "docs/tutorial/ten-minutes.md": 1,
}
"""How many snippets of each page say why they are not executed; a new one has to be counted here."""

FENCE = re.compile(
    r"^(?:<!-- (?P<note>(?:not executed: [^\n]+|executed in the background)) -->\n)?"
    r"^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
LANGUAGES = {"sh": "bash", "bash": "bash", "python": "python"}
NOT_CODE = {"text", "yaml", "json", "toml", "csv", "js"}
MINUTES = 10
TINY_OVERRIDES = {"model.picture.side": 32, "model.channels": [8, 16], "model.width": 16, "model.heads": 2}
TINY = " ".join(f"--set {key}={value}".replace(", ", ",") for key, value in TINY_OVERRIDES.items())


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    note: str

    @property
    def executed(self) -> bool:
        return self.language in LANGUAGES and not self.note.startswith("not executed: ")


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Snippet(name, text.count("\n", 0, match.start()) + 1, match["language"], match["code"], match["note"] or "")
        for match in FENCE.finditer(text)
    ]


ALL = [snippet for page in PAGES for snippet in snippets(page)]
EXECUTED_PAGES = sorted({s.page for s in ALL if s.executed and s.page not in EXECUTED_BY})


def test_every_fence_names_its_language_and_is_matched():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```", text, re.M)) == 2 * len(snippets(page)), page
    unknown = [(s.page, s.line, s.language) for s in ALL if s.language not in LANGUAGES.keys() | NOT_CODE]
    assert unknown == []


def test_what_is_not_executed_is_counted():
    pages = [s.page for s in ALL if s.language in LANGUAGES and not s.executed and s.page not in EXECUTED_BY]
    assert {page: pages.count(page) for page in pages} == NOT_EXECUTED
    assert sum(s.executed for s in ALL) >= 20


def test_pages_that_another_test_executes_are_read_by_it():
    for page, test in EXECUTED_BY.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def environment(home: Path) -> dict[str, str]:
    """The variables of the snippets: the installed commands first, a home of their own, one thread."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MEDICAL_VQA_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs with predictions, as a reader of the how-to guides has them."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MEDICAL_VQA_HOME", str(folder / "home"))
        mv.prepare("slake-mini", progress=False)
        for seed, name in enumerate(("demo", "other")):
            changes = TINY_OVERRIDES | {"training.epochs": 1, "training.seed": seed}
            run = mv.train("demo", run=f"runs/{name}", overrides=changes, progress=False)
            mv.predict(run, split="validation", progress=False)
    return folder


@pytest.fixture
def folder(trained, tmp_path, forks):
    """A copy of the trained folder, with an image, and the installed program as one that finds its libraries loaded."""
    place = tmp_path / "work"
    shutil.copytree(trained, place)
    for card in place.glob("runs/*/*.card.json"):
        card.write_text(card.read_text(encoding="utf-8").replace(str(trained), str(place)), encoding="utf-8")
    image = "src/medical_vqa/assets/slake-mini/imgs/xmlab112/source.jpg"
    for copy in (place / "scan.png", place / image):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / image, copy)
    (tmp_path / "bin").mkdir()
    forks.stand_in(tmp_path / "bin/medical-vqa", Path(sys.executable).with_name("medical-vqa"))
    return place


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait for the server that a snippet started; it ends by an answer, by its exit, or by the time limit."""
    limit = time.monotonic() + 60 * MINUTES
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < limit:
        assert process.poll() is None, "the server ended"
        try:
            with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not become ready")


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("page", EXECUTED_PAGES)
def test_the_snippets_of_a_page_run_in_order(page, folder):
    port = free_port()
    programs = f"{folder.parent / 'bin'}{os.pathsep}"
    variables = environment(folder / "home") | {"PORT": str(port)}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for snippet in (s for s in ALL if s.page == page and s.executed):
            code = snippet.code.replace("localhost:8000", f"127.0.0.1:{port}")
            code = code.replace("--set training.epochs=2", f"--set training.epochs=2 {TINY}")
            code = code.replace('"training.epochs": 2', f'"training.epochs": 2, **{TINY_OVERRIDES}')
            command = ["bash", "-euo", "pipefail", "-c", code]
            if snippet.language == "python":
                command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code]
            if snippet.note == "executed in the background":
                with (folder / "server.log").open("wb") as log:
                    servers.append(
                        subprocess.Popen(
                            command, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
                        )
                    )
                wait_until_ready(servers[-1], port)
                continue
            result = subprocess.run(
                command,
                cwd=folder,
                env=variables | {"PATH": programs + variables["PATH"]},
                capture_output=True,
                text=True,
                timeout=60 * MINUTES,
                check=False,
            )
            assert result.returncode == 0, f"{page}:{snippet.line}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)
