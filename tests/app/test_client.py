"""The client: what it sends, what it accepts, and how it waits for a backend that does not respond."""

import httpx2
import pytest
from fake_backend import REASON, png

from medical_vqa.app.client import Backend, BackendError
from medical_vqa.errors import ConfigError

UNUSED_ADDRESS = "http://127.0.0.1:9"


@pytest.fixture
def waits():
    return []


@pytest.fixture
def backend(fake, waits):
    return Backend(fake.address + "/", sleep=waits.append)


def test_an_image_is_uploaded_and_a_question_answered(backend):
    uploaded = backend.upload(png(96), "scan.png")
    assert (uploaded.width, uploaded.format) == (96, "PNG")
    answer = backend.ask(uploaded.image_id, "How wide?", attention_map=True)
    assert answer.answer == "96 pixels"
    assert answer.attention_map is not None
    assert backend.picture(uploaded.image_id).startswith(b"\x89PNG")
    assert backend.suggested_questions(uploaded.image_id) == ["What is shown?", "Is the liver healthy?"]


def test_an_abstention_comes_with_its_reason(backend):
    uploaded = backend.upload(png(), "scan.png")
    answer = backend.ask(uploaded.image_id, "How is the weather?", attention_map=False)
    assert answer.abstained
    assert answer.reason == REASON


def test_facts_and_examples_are_read(backend):
    assert backend.ready()
    assert backend.model().name == "fake-model"
    example = backend.examples().examples[0]
    assert backend.example_file(example) == png(80)


def test_deleting_twice_is_not_an_error(backend, fake):
    image_id = backend.upload(png(), "scan.png").image_id
    backend.delete_image(image_id)
    backend.delete_image(image_id)
    assert not fake.images


def test_frame_and_window_are_sent_as_form_fields(backend):
    dicom = bytes(128) + b"DICM"
    uploaded = backend.upload(dicom, "chest", frame=3, window=(-600, 1500))
    assert uploaded.width == 64 + 3
    assert (uploaded.header_fields["WindowCenter"], uploaded.header_fields["WindowWidth"]) == ("-600", "1500")


def test_a_busy_backend_is_retried_with_growing_waits(backend, fake, waits):
    fake.overloaded = 2
    assert backend.model().name == "fake-model"
    assert waits == [0.5, 1.0]
    assert fake.requests.count("GET /model") == 3


def test_a_backend_that_stays_busy_is_an_error(backend, fake):
    fake.overloaded = 9
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.code == "overloaded"
    assert raised.value.transient


def test_permanent_failures_are_not_retried(backend, fake, waits):
    with pytest.raises(BackendError) as raised:
        backend.upload(b"no picture", "notes.txt")
    assert (raised.value.code, raised.value.transient) == ("not_an_image", False)
    assert fake.requests == ["POST /upload_image"]
    assert waits == []


def test_a_backend_that_starts_is_not_ready(backend, fake):
    fake.starting = True
    assert not backend.ready()
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.code == "not_ready"


def test_a_backend_without_a_listener_is_unreachable(waits):
    backend = Backend(UNUSED_ADDRESS, sleep=waits.append)
    assert not backend.ready()
    with pytest.raises(BackendError, match="cannot be reached") as raised:
        backend.model()
    assert raised.value.code == "unreachable"
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (httpx2.Response(200, text="<html>"), "invalid_response"),
        (httpx2.Response(200, json={"name": "m"}), "invalid_response"),
        (httpx2.Response(502, text="bad gateway"), "not_ready"),
        (httpx2.Response(418, text="teapot"), "invalid_response"),
        (httpx2.ReadTimeout("late"), "response_timeout"),
        (httpx2.ConnectTimeout("late"), "unreachable"),
    ],
)
def test_every_unusable_response_is_one_type_of_error(monkeypatch, response, code):
    backend = Backend(UNUSED_ADDRESS, attempts=1)

    def request(*_, **__):
        if isinstance(response, Exception):
            raise response
        return response

    monkeypatch.setattr(backend._client, "request", request)
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.code == code


def test_retry_after_is_obeyed_within_bounds(monkeypatch, waits):
    busy = {"detail": {"code": "overloaded", "message": "later"}}
    backend = Backend(UNUSED_ADDRESS, sleep=waits.append)
    responses = iter([httpx2.Response(429, json=busy, headers={"Retry-After": after}) for after in ("2", "600", "1")])
    monkeypatch.setattr(backend._client, "request", lambda *_, **__: next(responses))
    with pytest.raises(BackendError):
        backend.model()
    assert waits == [2.0, 5.0]


def test_unknown_fields_of_a_newer_backend_are_ignored(backend, monkeypatch):
    content = backend.model().model_dump(mode="json")
    content["limits"]["news"] = content["news"] = 1
    monkeypatch.setattr(backend._client, "request", lambda *_, **__: httpx2.Response(200, json=content))
    assert backend.model().name == "fake-model"


def test_the_api_key_is_sent_as_a_bearer_token():
    assert Backend(UNUSED_ADDRESS, api_key="secret")._client.headers["Authorization"] == "Bearer secret"


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ConfigError, match="expected http"):
        Backend("localhost:8000")
