"""How log lines are written: for people in a terminal, as JSON elsewhere."""

import io
import json
import logging

import pytest
import structlog

from medical_vqa.serving.logs import AccessLog, configure_logging


@pytest.fixture(autouse=True)
def former_logging():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(stream: io.StringIO, style: str) -> str:
    configure_logging("info", stream, style=style)
    structlog.get_logger("medical_vqa.serving").info("serving", port=8501)
    return stream.getvalue()


@pytest.mark.parametrize(("stream", "style"), [(io.StringIO, "auto"), (io.StringIO, "json"), (Terminal, "json")])
def test_a_container_gets_json(stream, style):
    assert json.loads(line(stream(), style))["port"] == 8501


@pytest.mark.parametrize(("stream", "style"), [(Terminal, "auto"), (Terminal, "text"), (io.StringIO, "text")])
def test_a_terminal_gets_a_line_for_people(stream, style):
    text = line(stream(), style)
    assert "serving" in text
    assert "8501" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_a_closed_stream_of_logs_fails_no_request():
    stream = io.StringIO()
    configure_logging("info", stream, style="json")
    stream.close()
    AccessLog().write(status=200)
