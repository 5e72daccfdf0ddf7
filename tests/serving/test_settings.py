"""Settings that make no sense stop the server with one sentence."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from medical_vqa import cli
from medical_vqa.errors import ConfigError
from medical_vqa.serving.middleware.access import Keys, hash_key, new_key
from medical_vqa.serving.settings import Settings, read_settings


@pytest.fixture
def environ(monkeypatch):
    monkeypatch.delenv("MEDICAL_VQA_HOME", raising=False)
    return monkeypatch


def test_variables_lists_and_options(environ):
    environ.setenv("PORT", "9000")
    environ.setenv("MEDICAL_VQA_CORS_ORIGINS", "https://a.example, https://b.example")
    environ.setenv("MEDICAL_VQA_STORE_TTL", "none")
    found = read_settings(deadline=3.0, model=None)
    assert (found.port, found.deadline, found.store_ttl) == (9000, 3.0, None)
    assert found.cors_origins == ("https://a.example", "https://b.example")
    assert read_settings(port=7).port == 7


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEADLINE", "9", "must be below drain"),
        ("DEADLINE", "soon", "setting DEADLINE: input should be a valid number"),
        ("STORE", "ftp://x", "expected a folder or a URL of memory://, file://, s3://"),
        ("API_KEYS", "hunter2", "expected SHA-256 hashes, not keys"),
        ("RATE", "often", "such as 60/minute"),
        ("CORS_ORIGINS", "*", "expected origins such as https://app.example.org"),
        ("QUEUE", "0", "setting QUEUE: input should be greater than or equal to 1"),
        ("MAX_UPLOAD_BYTES", "999999999999", "store_bytes must not be below max_upload_bytes"),
        ("DEADLIN", "3", "did you mean MEDICAL_VQA_DEADLINE?"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(environ, name, value, said):
    environ.setenv(f"MEDICAL_VQA_{name}", value)
    with pytest.raises(ConfigError) as error:
        read_settings()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_every_setting_is_documented():
    from pathlib import Path

    guide = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"`{'PORT' if name == 'port' else 'MEDICAL_VQA_' + name.upper()}`" in guide, name
        assert field is not None


def test_a_new_key_is_let_in_by_its_hash_alone():
    key, digest = new_key()
    keys = Keys([f"clinic:{digest}", "0" * 64])
    assert keys.name(key) == "clinic"
    assert keys.name(digest) is None
    assert hash_key(key) == digest


def test_the_command_line_prints_a_key():
    said = CliRunner().invoke(cli.cli, ["serve", "--new-key"]).output
    key, digest = said.split()[3], said.rpartition("=")[2].strip()
    assert hash_key(key) == digest
