"""Settings that make no sense stop the server with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from medical_vqa import cli
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.serve import build_engine
from medical_vqa.serving.middleware.access import ApiKeys, hash_key, new_key
from medical_vqa.serving.settings import MEBIBYTE, PREFIX, Settings, read_settings


@pytest.fixture
def environ(monkeypatch):
    monkeypatch.delenv("MEDICAL_VQA_HOME", raising=False)
    return monkeypatch


def test_variables_lists_and_options(environ):
    environ.setenv("PORT", "9000")
    environ.setenv("MEDICAL_VQA_CORS_ORIGINS", "https://a.example, https://b.example")
    environ.setenv("MEDICAL_VQA_STORE_TTL", "none")
    settings = read_settings(deadline=3.0, model=None)
    assert (settings.port, settings.deadline, settings.store_ttl) == (9000, 3.0, None)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert read_settings(port=7).port == 7


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DEADLINE", "9", "must be below drain_timeout"),
        ("DEADLINE", "soon", "setting DEADLINE: expected a number of more than 0, got 'soon'"),
        ("STORE", "ftp://me:hunter2@x", "expected a folder or a URL of memory://, file://, s3://"),
        ("API_KEYS", "hunter2", "expected SHA-256 hashes, not keys"),
        ("RATE_LIMIT", "often", "such as 60/minute"),
        ("RATE_LIMIT", "0/minute", "at least 1 per second"),
        ("RATE_LIMIT", "9/0 minutes", "at least 1 per second"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "expected addresses or networks such as 10.0.0.0/8"),
        ("TRUSTED_PROXIES", "proxy.local", "expected addresses or networks such as 10.0.0.0/8"),
        ("CORS_ORIGINS", "*", "expected origins such as https://app.example.org"),
        ("QUEUE_SIZE", "0", "setting QUEUE_SIZE: expected a whole number of at least 1, got '0'"),
        ("MAX_UPLOAD_BYTES", "999999999999", "store_bytes must not be below max_upload_bytes"),
        ("DEADLIN", "3", "did you mean MEDICAL_VQA_DEADLINE?"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_sentence(environ, name, value, message):
    environ.setenv(f"MEDICAL_VQA_{name}", value)
    with pytest.raises(ConfigError) as error:
        read_settings()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_limits_follow_from_the_memory_unless_they_are_set(environ):
    small, large = (read_settings(memory_bytes=gibibytes * 1024 * MEBIBYTE) for gibibytes in (1, 4))
    assert (small.store_bytes, large.store_bytes) == (128 * MEBIBYTE, 512 * MEBIBYTE)
    assert (small.max_pixels, large.max_pixels) == (25_000_000, 64_000_000)
    assert small.max_upload_bytes + small.body_bytes + small.store_bytes + small.decoder_memory_bytes < 768 * MEBIBYTE
    environ.setenv("MEDICAL_VQA_MAX_PIXELS", "1000000")
    assert read_settings().max_pixels == 1_000_000


def test_all_mistakes_are_reported_at_once(environ):
    environ.setenv("MEDICAL_VQA_QUEUE_SIZE", "0")
    environ.setenv("MEDICAL_VQA_RATE_LIMIT", "often")
    with pytest.raises(ConfigError, match=r"setting QUEUE_SIZE: .*; setting RATE_LIMIT: "):
        read_settings()


def documented_default(value):
    """How the guide shows a default."""
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value % MEBIBYTE == 0 and value:
        return f"{value // 1024 // MEBIBYTE} GiB" if value >= 1024 * MEBIBYTE else f"{value // MEBIBYTE} MiB"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_documented_with_its_default_and_its_docstring():
    guide = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text(encoding="utf-8")
    at_one_gibibyte = read_settings({}, memory_bytes=1024 * MEBIBYTE)
    rows = []
    for name, field in Settings.model_fields.items():
        default = documented_default(field.default)
        if field.default_factory is not None:
            share = documented_default(getattr(at_one_gibibyte, name))
            default = "–" if name == "memory_bytes" else f"{share} of 1 GiB"
        rows.append(f"| `{'PORT' if name == 'port' else PREFIX + name.upper()}` | {default} | {field.description} |")
    assert "\n".join(rows) in guide


def test_a_server_takes_every_name_of_a_model_that_ask_takes(run, environ):
    names = {"shipped": "compact-onnx", str(run): "compact", run / "bundle": "compact"}
    families = {name: build_engine(read_settings(model=name)).card.family for name in names}
    assert families == names
    with pytest.raises(ConfigError, match="not a hub repository; write hub:USER/NAME"):
        build_engine(read_settings(model="hub:no such name"))


def test_a_new_key_is_let_in_by_its_hash_alone():
    key, digest = new_key()
    keys = ApiKeys([f"clinic:{digest}", "0" * 64])
    assert keys.client(key).tenant == "clinic"
    assert keys.client(digest) is None
    assert hash_key(key) == digest


def test_the_command_line_prints_a_key():
    output = CliRunner().invoke(cli.cli, ["serve", "--new-key"]).output
    key, digest = output.split()[3], output.rpartition("=")[2].strip()
    assert hash_key(key) == digest
