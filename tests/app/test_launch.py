"""How page and backend are started, and that they end together."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medical_vqa.app import launch, settings
from medical_vqa.app.settings import read_app_settings
from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.serving.settings import read_settings


@pytest.fixture
def started(monkeypatch):
    """What would have been started: commands and their environments."""
    seen = []
    monkeypatch.setattr(launch, "_together", lambda commands: seen.extend(commands) or 0)
    return seen


def start(**changes):
    options = {
        "model": None, "backend": None, "compare": None, "feedback": None, "host": "127.0.0.1", "port": 8501,
        "environ": {"PATH": "x"},
    }  # fmt: skip
    return launch.run(**{**options, **changes})


def test_alone_it_starts_a_backend_and_the_page_that_asks_it(started):
    start(model=Path("runs/mine"), environ={"PATH": "x", "MEDICAL_VQA_COMPARE": "http://other"})
    (serve, serve_environ), (_, page_environ) = started
    assert serve[2:6] == ["medical_vqa", "serve", "--model", "runs/mine"]
    assert serve_environ == {"PATH": "x"}
    assert page_environ[settings.BACKEND] == f"http://127.0.0.1:{serve[-1]}"
    assert page_environ[settings.FEEDBACK] == "feedback"


def test_a_page_for_others_asks_for_feedback_only_where_told(started):
    start(host="0.0.0.0")
    assert settings.FEEDBACK not in started[1][1]


@pytest.mark.parametrize("how", [{"backend": "http://there"}, {"environ": {settings.BACKEND: "http://there"}}])
def test_with_an_address_only_the_page_is_started(started, how):
    start(**how)
    ((page, environ),) = started
    assert "streamlit" in page
    assert environ[settings.BACKEND] == "http://there"


def test_a_model_for_a_backend_elsewhere_is_refused(started):
    with pytest.raises(ConfigError, match="has a model of its own"):
        start(model=Path("m"), backend="http://there")


def test_without_streamlit_the_line_that_installs_it_is_told(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"medical-vqa\[app\]"):
        start()


def test_the_page_tells_nobody_anything():
    assert launch.OPTIONS["browser.gatherUsageStats"] == "false"
    assert "--browser.gatherUsageStats" in launch.page_command("127.0.0.1", 1)


def test_when_one_part_ends_the_other_is_stopped():
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    ender = [sys.executable, "-c", "raise SystemExit(3)"]
    assert launch._together([(sleeper, {}), (ender, {})]) == 3


def test_sigterm_stops_both_and_is_no_failure():
    script = (
        "import sys; from medical_vqa.app import launch\n"
        "sleeper = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "sys.exit(launch._together([(sleeper, {}), (sleeper, {})]))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(60, process.kill)
        killer.start()
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "1\n"]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""  # ends when the last child has closed it
        assert process.wait() == 0
        killer.cancel()


def test_a_backend_in_the_same_environment_minds_its_own_settings():
    assert read_settings(dict.fromkeys(settings.NAMES, "http://there")).store == "memory://"


def test_settings_come_from_the_environment_first_then_from_the_secrets():
    secrets = {settings.BACKEND: "http://secret", settings.API_KEY: "k"}
    found = read_app_settings({settings.BACKEND: "http://env"}, secrets)
    assert (found.backend, found.api_key, found.feedback) == ("http://env", "k", None)
    assert read_app_settings({}, {}).backend == settings.HERE
