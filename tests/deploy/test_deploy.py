"""`medical-vqa deploy`: a complete folder, no file of the user lost, and `deploy/` rendered from the templates."""

from __future__ import annotations

import runpy
import subprocess
import zipfile
from pathlib import Path

import pytest

from medical_vqa.cli import cli
from medical_vqa.deploying import packages
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.deploy import deploy
from medical_vqa.schema.bundle_card import read_bundle_card

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    path = tmp_path_factory.mktemp("dist") / "medical_vqa-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("medical_vqa/__init__.py", "")
    return path


def test_it_writes_everything_that_the_container_copies(run, wheel, tmp_path):
    out = tmp_path / "out"
    written = deploy("compose", run, out, values={}, wheel=wheel)
    assert all(path.is_file() for path in written)
    assert read_bundle_card(out / "model").family == "compact-onnx"
    assert {path.name for path in (out / "packages").iterdir()} == {"constraints.txt", wheel.name}
    assert load_model(out / "model", "cpu")[0].answer([], read_bundle_card(out / "model").decoding) == []


def test_a_page_with_a_backend_elsewhere_contains_no_model(run, wheel, tmp_path):
    deploy("space", run, tmp_path / "out", values={"backend": "https://x.example"}, wheel=wheel)
    assert not (tmp_path / "out" / "model").exists()


def test_nothing_is_overwritten_without_force(run, wheel, tmp_path):
    (tmp_path / "compose.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        deploy("compose", run, tmp_path, values={}, wheel=wheel)
    assert (tmp_path / "compose.yaml").read_text() == "mine"
    deploy("compose", run, tmp_path, values={}, wheel=wheel, force=True)
    assert "services:" in (tmp_path / "compose.yaml").read_text()


def test_a_mistake_leaves_no_half_folder(run, wheel, tmp_path):
    with pytest.raises(ConfigError):
        deploy("compose", run, tmp_path / "out", values={"regoin": "x"}, wheel=wheel)
    with pytest.raises(ConfigError, match="is not a wheel"):
        deploy("compose", run, tmp_path / "out", values={}, wheel=tmp_path / "nothing.whl")
    assert not (tmp_path / "out").exists()


def test_the_command_lists_the_files_and_what_comes_next(run, wheel, tmp_path):
    from click.testing import CliRunner

    options = ["--model", str(run), "--out", str(tmp_path / "out"), "--wheel", str(wheel), "--set", "project=mine"]
    done = CliRunner().invoke(cli, ["deploy", "cloud-run", *options], catch_exceptions=False)
    assert "service.yaml" in done.output
    assert done.output.splitlines()[-1] == f"next: the commands in {tmp_path / 'out' / 'README.md'}"
    assert "project mine" in (tmp_path / "out" / "README.md").read_text()


def test_the_wheel_of_a_checkout_is_built_and_an_old_one_removed(tmp_path, monkeypatch):
    (tmp_path / "medical_vqa-0.0.1-py3-none-any.whl").touch()

    def pip(command, **options):
        assert command[1:4] == ["-m", "pip", "wheel"]
        (tmp_path / "medical_vqa-0.1.0-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    assert packages.copy_packages(tmp_path, None) == "medical_vqa-0.1.0-py3-none-any.whl"
    assert len(list(tmp_path.glob("*.whl"))) == 1


def test_a_wheel_that_cannot_be_built_is_one_sentence(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "lines\nERROR: no network")
    monkeypatch.setattr(packages.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(ConfigError, match=r"ERROR: no network.*--wheel FILE"):
        packages.copy_packages(tmp_path, None)


def test_an_installed_package_comes_from_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(packages, "_PACKAGE", tmp_path / "site")
    with pytest.raises(ConfigError, match=r"constraints\.txt is missing"):
        packages.copy_packages(tmp_path / "out", None)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "constraints.txt").write_text("click==8.5.1\n")
    assert packages.copy_packages(tmp_path / "out", None) is None
    assert (tmp_path / "out" / "constraints.txt").read_text() == "click==8.5.1\n"


def test_the_deploy_folder_holds_what_is_rendered_for_the_shipped_model():
    """After a change of a template or of the shipped model: python tools/render_deploy.py."""
    expected = runpy.run_path(str(ROOT / "tools" / "render_deploy.py"))["files"]()
    folder = ROOT / "deploy"
    rendered = {path.parts[0] for path in expected}
    here = {path.relative_to(folder) for path in folder.glob("*/**/*") if path.is_file()}
    here = {path for path in here if path.parts[0] in rendered and path.parts[1] not in ("model", "packages")}
    assert here == set(expected)
    for path, text in expected.items():
        assert (folder / path).read_text(encoding="utf-8") == text, path


def test_the_script_that_builds_the_images_passes_shellcheck(tool):
    status, output = tool("shellcheck", ROOT / "tools" / "try_images.sh")
    assert status == 0, output
