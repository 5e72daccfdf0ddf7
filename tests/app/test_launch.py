"""How page and backend are started, and that they end together."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medical_vqa.app import launch, settings
from medical_vqa.app.launch import Process
from medical_vqa.app.settings import read_app_settings
from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.serving.settings import read_settings

SLEEP = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]


def plan(**changes):
    options = {
        "model": None, "backend": None, "compare": None, "feedback": None, "host": "127.0.0.1", "port": 8501,
        "environ": {"PATH": "x"},
    }  # fmt: skip
    return launch.plan(**{**options, **changes})


def test_without_an_address_a_backend_is_started_and_the_page_connected_to_it():
    serve, page = plan(model="runs/mine", environ={"PATH": "x", "MEDICAL_VQA_COMPARE": "http://other"})
    assert serve.command[2:6] == ["medical_vqa", "serve", "--model", "runs/mine"]
    assert serve.environ == {"PATH": "x"}
    assert page.environ[settings.BACKEND] == f"http://127.0.0.1:{serve.command[-1]}"
    assert page.environ[settings.FEEDBACK] == "feedback"


def test_a_page_that_other_machines_can_open_needs_an_explicit_feedback_folder():
    _, page = plan(host="0.0.0.0")
    assert settings.FEEDBACK not in page.environ
    _, page = plan(host="0.0.0.0", feedback=Path("votes"))
    assert page.environ[settings.FEEDBACK] == "votes"


@pytest.mark.parametrize("options", [{"backend": "http://there"}, {"environ": {settings.BACKEND: "http://there"}}])
def test_with_an_address_only_the_page_is_started(options):
    (page,) = plan(**options)
    assert "streamlit" in page.command
    assert page.environ[settings.BACKEND] == "http://there"


def test_a_model_and_a_running_backend_together_are_refused():
    with pytest.raises(ConfigError, match="expected a model or a backend, got both"):
        plan(model="m", backend="http://there")


@pytest.mark.parametrize("package", ["streamlit", "httpx2"])
def test_a_missing_package_is_named_with_the_extra_before_anything_is_printed(monkeypatch, refused, package):
    find_spec = launch.importlib.util.find_spec
    monkeypatch.setattr(
        launch.importlib.util, "find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    with pytest.raises(MissingDependencyError, match=rf"needs {package}.*medical-vqa\[app\]"):
        plan(backend="http://there")
    assert "pip install 'medical-vqa[serve,app]'" in refused("app", "--streamlit")


def test_the_page_sends_no_telemetry():
    assert launch.STREAMLIT_OPTIONS["browser.gatherUsageStats"] == "false"
    assert "--browser.gatherUsageStats" in launch.page_command("127.0.0.1", 1)


def test_when_one_process_ends_the_other_is_stopped():
    end = [sys.executable, "-c", "raise SystemExit(3)"]
    assert launch.run([Process(SLEEP, {}), Process(end, {})]) == 3


def test_sigterm_stops_both_and_is_a_normal_end():
    script = (
        "import sys; from medical_vqa.app import launch\n"
        f"sleep = launch.Process({SLEEP!r}, {{}})\n"
        "sys.exit(launch.run([sleep, sleep]))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(300, process.kill)
        killer.start()
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "1\n"]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""  # ends when the last child has closed it
        assert process.wait() == 0
        killer.cancel()


def test_a_backend_ignores_the_pages_variables():
    assert read_settings(dict.fromkeys(settings.VARIABLES, "http://there")).store == "memory://"


def test_settings_come_from_the_environment_first_then_from_the_secrets():
    secrets = {settings.BACKEND: "http://secret", settings.API_KEY: "k"}
    app_settings = read_app_settings({settings.BACKEND: "http://env"}, secrets)
    assert (app_settings.backend, app_settings.api_key, app_settings.feedback) == ("http://env", "k", None)
    assert read_app_settings({}, {}).backend == settings.DEFAULT_BACKEND


def test_a_port_that_is_in_use_is_refused_before_the_page_is_promised(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options in ([], ["--streamlit"]):
            assert "choose another --port" in refused("app", *options, "--port", port)
