"""The client: what it sends, what it takes, and how it waits for a backend that is not there."""

import httpx2
import pytest
from fake_backend import REASON, png

from medical_vqa.app.client import Backend, BackendError
from medical_vqa.errors import ConfigError

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def waits():
    return []


@pytest.fixture
def backend(fake, waits):
    return Backend(fake.address + "/", sleep=waits.append)


def test_an_image_is_uploaded_and_asked_about(backend):
    uploaded = backend.upload(png(96), "scan.png")
    assert (uploaded.width, uploaded.format) == (96, "PNG")
    answer = backend.ask(uploaded.image_id, "How wide?", attention_map=True)
    assert answer.answer == "96 pixels"
    assert answer.attention_map is not None
    assert backend.picture(uploaded.image_id).startswith(b"\x89PNG")
    assert backend.questions(uploaded.image_id) == ["What is shown?", "Is the liver healthy?"]


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


def test_deleting_twice_is_no_error(backend, fake):
    image_id = backend.upload(png(), "scan.png").image_id
    backend.forget(image_id)
    backend.forget(image_id)
    assert not fake.images


def test_frame_and_window_go_as_form_fields(backend):
    dicom = bytes(128) + b"DICM"
    uploaded = backend.upload(dicom, "chest", frame=3, window=(-600, 1500))
    assert uploaded.width == 64 + 3
    assert (uploaded.facts["WindowCenter"], uploaded.facts["WindowWidth"]) == ("-600", "1500")


def test_a_busy_backend_is_asked_again_later_each_time(backend, fake, waits):
    fake.fails = 2
    assert backend.model().name == "fake-model"
    assert waits == [0.5, 1.0]
    assert fake.requests.count("GET /model") == 3


def test_a_backend_that_stays_busy_is_given_up(backend, fake):
    fake.fails = 9
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.kind == "overloaded"
    assert raised.value.passing


def test_what_will_not_get_better_is_not_repeated(backend, fake, waits):
    with pytest.raises(BackendError) as raised:
        backend.upload(b"no picture", "notes.txt")
    assert (raised.value.kind, raised.value.passing) == ("not_an_image", False)
    assert fake.requests == ["POST /upload_image"]
    assert waits == []


def test_a_sleeping_backend_is_not_ready(backend, fake):
    fake.asleep = True
    assert not backend.ready()
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.kind == "not_ready"


def test_a_backend_that_is_not_there_is_unreachable(waits):
    backend = Backend(NOWHERE, sleep=waits.append)
    assert not backend.ready()
    with pytest.raises(BackendError, match="cannot be reached") as raised:
        backend.model()
    assert raised.value.kind == "unreachable"
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (httpx2.Response(200, text="<html>"), "garbled"),
        (httpx2.Response(200, json={"name": "m"}), "garbled"),
        (httpx2.Response(502, text="bad gateway"), "not_ready"),
        (httpx2.Response(418, text="teapot"), "garbled"),
        (httpx2.ReadTimeout("late"), "slow"),
        (httpx2.ConnectTimeout("late"), "unreachable"),
    ],
)
def test_whatever_comes_back_is_one_kind_of_error(monkeypatch, reply, kind):
    backend = Backend(NOWHERE, tries=1)

    def request(*_, **__):
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(backend._client, "request", request)
    with pytest.raises(BackendError) as raised:
        backend.model()
    assert raised.value.kind == kind


def test_the_wait_that_the_backend_asks_for_is_kept_within_bounds(monkeypatch, waits):
    busy = {"detail": {"code": "overloaded", "message": "later"}}
    backend = Backend(NOWHERE, sleep=waits.append)
    replies = iter([httpx2.Response(429, json=busy, headers={"Retry-After": after}) for after in ("2", "600", "1")])
    monkeypatch.setattr(backend._client, "request", lambda *_, **__: next(replies))
    with pytest.raises(BackendError):
        backend.model()
    assert waits == [2.0, 5.0]


def test_a_newer_backend_may_say_more(backend, monkeypatch):
    content = backend.model().model_dump(mode="json")
    content["limits"]["news"] = content["news"] = 1
    monkeypatch.setattr(backend._client, "request", lambda *_, **__: httpx2.Response(200, json=content))
    assert backend.model().name == "fake-model"


def test_the_key_goes_along():
    assert Backend(NOWHERE, api_key="secret")._client.headers["Authorization"] == "Bearer secret"


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ConfigError, match="expected http"):
        Backend("localhost:8000")
