"""The HTTP contract: names, fields and codes, over a real socket."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace

import live
import numpy as np
import pytest
from echo_model import Echo, make_engine
from live import png
from PIL import Image

from medical_vqa.models.base import Localization
from medical_vqa.serving.image_store import repository
from medical_vqa.serving.image_store.folder import FolderStore
from medical_vqa.serving.logs import configure_logging
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.schema.answers import Alternative, Answer, Answers
from medical_vqa.serving.schema.common import IMAGE_ID, IMAGE_ID_EXAMPLE
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.examples import Examples
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.schema.models import ModelInfo


@pytest.fixture(scope="module")
def client():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        yield client


def uploaded(client, gray=100, **fields):
    reply = client.post("/upload_image", files={"image_file": ("a.png", png(gray))}, data=fields)
    assert reply.status_code == 200, reply.text
    return UploadedImage.model_validate(reply.json())


def refused(reply, status, code):
    assert reply.status_code == status, reply.text
    problem = Problem.model_validate(reply.json())
    assert problem.detail.code == code
    return problem.detail.message


def test_upload_then_ask_by_form_or_json(client):
    image = uploaded(client)
    assert re.match(IMAGE_ID, image.image_id)
    assert (image.width, image.height, image.format, image.frames) == (16, 16, "PNG", 1)
    body = {"image_id": image.image_id, "question": "What is it?"}
    for reply in (client.post("/ask_question", data=body), client.post("/ask_question", json=body)):
        answer = Answer.model_validate(reply.json())
        assert (answer.answer, answer.question, answer.confidence) == ("100 What is it?", "What is it?", 0.8)
        assert answer.alternatives == [Alternative(answer="other", confidence=0.1)]
        assert (answer.abstained, answer.reason, answer.attention_map) == (False, None, None)
        assert answer.model.name == "echo-1"
        assert 0 < answer.timings.total_ms < 1000 * live.PATIENCE


def test_an_attention_map_is_added_on_request(client):
    image = uploaded(client)
    answer = client.post(
        "/ask_question", data={"image_id": image.image_id, "question": "q", "attention_map": "true"}
    ).json()
    assert (answer["attention_map"]["rows"], answer["attention_map"]["columns"]) == (2, 3)
    assert sum(map(sum, answer["attention_map"]["values"])) == pytest.approx(1, abs=1e-4)


class Localizing(Echo):
    """Localizes the left lung in the right half."""

    def localizations(self, query, prediction):
        return [Localization("Left Lung", "mask", np.repeat([[0.0, 0.8]], 2, axis=0))]


def test_every_route_that_answers_carries_evidence_in_pixels_of_the_upload():
    with live.serving(make_engine(Localizing())) as url, live.client_of(base_url=url) as client:
        image = uploaded(client)
        file = {"image_file": ("a.png", png(100))}
        data_url = "data:image/png;base64," + base64.b64encode(png(100)).decode()
        content = [{"type": "image_url", "image_url": {"url": data_url}}, {"type": "text", "text": "Where?"}]
        chat = {"model": "medical-vqa", "messages": [{"role": "user", "content": content}]}
        answers = [
            client.post("/ask_question", json={"image_id": image.image_id, "question": "Where?"}).json(),
            client.post("/ask", files=file, data={"question": "Where?"}).json(),
            client.post("/v1/chat/completions", json=chat).json()["medical_vqa"],
        ]
    assert image.spacing is None
    for answer in answers:
        (item,) = Answer.model_validate(answer).evidence
        assert (item.name, item.side, item.position, item.score) == ("Left Lung", "patient", "right", 0.8)
        assert item.box == pytest.approx((8, 0, 16, 16), abs=0.1)


def test_several_questions_in_one_request_keep_their_order(client):
    image = uploaded(client, gray=50)
    body = {"image_id": image.image_id, "questions": [f"Question {n}?" for n in range(12)]}
    reply = Answers.model_validate(client.post("/ask_questions", json=body).json())
    assert [answer.answer for answer in reply.answers] == [f"50 Question {n}?" for n in range(12)]


def test_one_of_several_questions_that_is_refused_refuses_the_request(client):
    image = uploaded(client, gray=51)
    body = {"image_id": image.image_id, "questions": ["What?", "refuse please"]}
    refused(client.post("/ask_questions", json=body), 422, "invalid")


def test_image_and_question_in_one_request_store_nothing(client):
    reply = client.post("/ask", files={"image_file": png(30)}, data={"question": "Now?"})
    assert (reply.json()["answer"], reply.json()["image_id"]) == ("30 Now?", None)


def test_a_deleted_image_is_unknown(client):
    image = uploaded(client)
    assert client.delete(f"/images/{image.image_id}").status_code == 204
    body = {"image_id": image.image_id, "question": "q"}
    refused(client.post("/ask_question", json=body), 404, "unknown_image")
    refused(client.delete(f"/images/{image.image_id}"), 404, "unknown_image")


def test_the_picture_is_returned_as_it_was_decoded_without_metadata(client):
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "Doe, Jane"
    exif[0x0112] = 6  # to be rotated
    Image.fromarray(np.full((8, 24), 90, np.uint8)).save(out, "JPEG", exif=exif)
    image = client.post("/upload_image", files={"image_file": out.getvalue()}).json()
    reply = client.get(f"/images/{image['image_id']}/picture")
    assert reply.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(reply.content)) as picture:
        assert (picture.format, picture.size, picture.info) == ("PNG", (8, 24), {})
    assert b"Doe" not in reply.content


def test_the_picture_of_an_unknown_image_is_404(client):
    image = uploaded(client)
    client.delete(f"/images/{image.image_id}")
    for image_id in (image.image_id, "a" * 24 + "-" + "b" * 22, "x"):
        refused(client.get(f"/images/{image_id}/picture"), 404, "unknown_image")


def test_equal_pictures_get_different_ids_with_an_equal_head(client):
    one, two = uploaded(client), uploaded(client)
    assert one.image_id != two.image_id
    assert one.image_id[:24] == two.image_id[:24]


@pytest.mark.parametrize(
    "id_",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "a" * 24,
        "%00",
        "x" * 60,
        "a" * 24 + "-" + "b" * 21 + "\n",
        "a" * 24 + "-" + "b" * 22 + "\n",
    ],
)
def test_an_id_with_other_characters_is_unknown(client, id_):
    reply = client.post("/ask_question", json={"image_id": id_, "question": "q"})
    refused(reply, 404, "unknown_image")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("", "question"), ("   ", "question"), ("x" * 1001, "at most 1000 characters"), ("a\x00b", "question"),
        ("a\x1b[31mb", "question"), ("a\nb", "question"), (None, "question"), (5, "valid string"),
    ],
)  # fmt: skip
def test_a_question_that_is_invalid_is_422_and_is_not_repeated(client, question, expected):
    reply = client.post("/ask_question", json={"image_id": "a" * 24 + "-" + "b" * 22, "question": question})
    message = refused(reply, 422, "invalid")
    assert expected in message
    assert "\x1b" not in message and "xxxx" not in message


def test_a_field_that_does_not_exist_is_named_only_where_it_can_be_a_name(client):
    body = {"image_id": "x", "question": "q", "frames": 3, "Has Anna Smith a tumor?": 1}
    message = refused(client.post("/ask_question", json=body), 422, "invalid")
    assert message == "frames: there is no such field; body: there is no such field"


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 422, "invalid"),
        (b'{"image_id": "\\ud800", "question": "q"}', "application/json", 422, "invalid"),
        (b'{"image_id": "x", "question": "\\ud800"}', "application/json", 422, "invalid"),
        (b'{"image_id": "x", "question": "q", "more": 1}', "application/json", 422, "invalid"),
        (b"image_id=x&question=q&question=r", "application/x-www-form-urlencoded", 422, "invalid"),
        (b"\xff\xfe=%ff", "application/x-www-form-urlencoded", 422, "invalid"),
        (b"--b\r\nnonsense", "multipart/form-data; boundary=b", 422, "invalid"),
        (b"x", "multipart/form-data", 400, "invalid"),
        (b'{"image_id": "x", "question": "q"}', "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"<a/>", "text/xml", 415, "unsupported_media_type"),
        (b"x", "", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_read_is_the_clients_mistake(client, content, kind, status, code):
    refused(client.post("/ask_question", content=content, headers={"Content-Type": kind}), status, code)


@pytest.mark.parametrize("data", [b"", b"no picture", png()[:45], b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_what_is_no_image_is_400(client, data):
    message = refused(
        client.post("/upload_image", files={"image_file": ("secret-name.png", data)}), 400, "not_an_image"
    )
    assert "secret-name" not in message


@pytest.mark.parametrize(("method", "path", "body", "message"), [
    ("GET", f"/images/{IMAGE_ID_EXAMPLE}/view?window=Lung 4", None, "window: expected CENTER,WIDTH in numbers"),
    ("POST", "/ask_question", {"image_id": IMAGE_ID_EXAMPLE, "question": "a\nb"}, "question: expected a question of"),
    ("POST", "/ask_question", {"image_id": IMAGE_ID_EXAMPLE, "question": "Is it?", "window": "1,,2"}, "such as 40,400"),
    ("POST", "/images/dicomweb", {"study": "1..2"}, "study: expected a DICOM UID"),
    ("DELETE", "/models/.a", None, "name: expected up to 64 letters"),
])  # fmt: skip
def test_what_has_another_form_is_refused_in_words(client, method, path, body, message):
    received = refused(client.request(method, path, json=body), 422, "invalid")
    assert message in received
    assert "^" not in received


@pytest.mark.parametrize("path", ["/healthz", "/model", "/examples", "/openapi.json"])
def test_head_is_answered_as_get_without_a_body(client, path):
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in ("content-type", "content-length")} == {
        name: whole.headers[name] for name in ("content-type", "content-length")
    }
    assert client.head("/nothing").status_code == 404
    assert client.head("/ask_question").headers["allow"] == "POST"
    assert client.get("/healthz").json() == {"status": "ok"}  # on the same connection


@pytest.mark.parametrize("path", ["/ask_question", "/ask_questions", "/v1/chat/completions", "/ask_question/stream"])
def test_a_body_that_is_no_json_is_refused_by_where_it_ends_to_be(client, path):
    reply = client.post(path, content=b'{"image_id": nothing}', headers={"Content-Type": "application/json"})
    error = reply.json()["error"] if path.startswith("/v1/") else reply.json()["detail"]
    assert (reply.status_code, error["message"]) == (422, "body: invalid json: expected ident at line 1 column 15")
    assert error.get("param") is None


@pytest.mark.parametrize(("form", "message"), [
    ({"files": [("image_file", png())] * 200}, "cannot be read: too many files. Maximum number of files is 100"),
    ({"data": {f"a{n}": "b" for n in range(20)}}, "the form cannot be read: too many fields"),
    ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "missing boundary in multipart"),
])  # fmt: skip
def test_a_form_that_cannot_be_read_is_refused_by_what_is_wrong(client, form, message):
    form = {"files": {"other": b"x"}, **form} if "data" in form else form
    assert message in refused(client.post("/upload_image", **form), 400, "invalid")


def test_missing_fields_and_unknown_paths_have_their_codes(client):
    refused(client.post("/upload_image", data={"x": "y"}), 422, "invalid")
    refused(client.get("/nothing"), 404, "not_found")
    reply = client.get("/ask_question")
    refused(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"
    refused(client.get("/examples/nothing/image"), 404, "not_found")


def test_a_picture_with_too_many_pixels_is_413_before_it_is_decoded():
    out = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(out, "PNG")
    with live.serving(make_engine()) as url:
        reply = live.request("POST", f"{url}/upload_image", files={"image_file": out.getvalue()})
    refused(reply, 413, "too_large")


def test_a_body_that_is_too_large_is_413_before_it_is_read():
    with (
        live.serving(make_engine(), live.settings(max_upload_bytes=10_000)) as url,
        live.client_of(base_url=url) as client,
    ):
        refused(client.post("/upload_image", files={"image_file": bytes(20_000)}), 413, "too_large")

        def chunks():
            for _ in range(20):
                yield bytes(1000)

        reply = client.post("/ask_question", content=chunks(), headers={"Content-Type": "application/json"})
        refused(reply, 413, "too_large")


def test_a_body_that_arrives_too_slowly_is_408():
    import asyncio

    async def drip(url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /ask_question HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nContent-Type: application/json"
        start = time.monotonic()
        writer.write(f"{head}\r\n\r\n".encode())

        async def keep_dripping():
            while True:
                writer.write(b"-")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(keep_dripping())
        head = await reader.readline()
        dripping.cancel()
        await live.hang_up(writer)
        return head, time.monotonic() - start

    with live.serving(make_engine(), live.settings(upload_timeout=0.4)) as url:
        head, seconds = asyncio.run(asyncio.wait_for(drip(url), live.PATIENCE))
    assert b"408" in head
    assert seconds > 0.3  # and it arrived, although the request never ends


def test_dicom_header_is_dropped_and_the_window_is_refused_where_there_is_none(client):
    reply = client.post(
        "/upload_image", files={"image_file": png()}, data={"window_center": "40", "window_width": "80"}
    )
    refused(reply, 400, "not_an_image")
    refused(client.post("/upload_image", files={"image_file": png()}, data={"window_center": "40"}), 422, "invalid")


def test_exif_and_comments_are_reported_and_removed(tmp_path):
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "PATIENT JANE DOE"
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(out, "JPEG", exif=exif, comment=b"ward 7")
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)
    with live.serving(make_engine(), store=store) as url:
        reply = live.request(
            "POST", f"{url}/upload_image", files={"image_file": ("JANE.jpg", out.getvalue() + b"PK trailing")}
        )
    assert "EXIF" in reply.json()["removed_metadata"]
    (file,) = tmp_path.glob("*/*")
    blob = file.read_bytes()
    assert b"JANE" not in blob and b"ward 7" not in blob and b"PK trail" not in blob
    assert out.getvalue()[:100] not in blob


def test_a_dicom_upload_keeps_nothing_of_its_header(tmp_path):
    import pydicom.data

    data = Path(pydicom.data.get_testdata_file("CT_small.dcm")).read_bytes()
    assert b"CompressedSamples^CT1" in data  # the patient's name
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)
    with live.serving(make_engine(), store=store) as url:
        reply = live.request("POST", f"{url}/upload_image", files={"image_file": ("a.dcm", data)})
        windowed = live.request(
            "POST",
            f"{url}/upload_image",
            files={"image_file": data},
            data={"window_center": "40", "window_width": "80"},
        )
        missing = live.request("POST", f"{url}/upload_image", files={"image_file": data}, data={"frame": "7"})
    image = UploadedImage.model_validate(reply.json())
    assert (image.format, image.width, image.height) == ("DICOM", 128, 128)
    assert "DICOM header" in image.removed_metadata
    assert "CT" in image.header_fields.values()
    assert (image.frame, image.frames, image.plane, image.window_source) == (0, 1, "axial", "percentiles")
    assert UploadedImage.model_validate(windowed.json()).window_source == "option"
    assert (image.burned_in_annotation, image.warnings) == (None, [])
    assert windowed.json()["image_id"][:24] != image.image_id[:24]  # other pixels
    refused(missing, 400, "not_an_image")
    for file in tmp_path.glob("*/*"):
        assert b"CompressedSamples" not in file.read_bytes()
    assert "CompressedSamples" not in reply.text


def test_the_original_is_stored_only_where_a_setting_says_so(tmp_path):
    for keep in (False, True):
        store = FolderStore(tmp_path / str(keep), ttl=None, max_bytes=1 << 20)
        data = png() + b"tail of the original"
        with live.serving(make_engine(), live.settings(keep_originals=keep), store) as url:
            assert live.request("POST", f"{url}/upload_image", files={"image_file": data}).status_code == 200
        (file,) = (tmp_path / str(keep)).glob("*/*")
        assert (b"tail of the original" in file.read_bytes()) is keep


def test_another_model_on_the_store_answers_for_earlier_uploads(tmp_path):
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)
    with live.serving(make_engine(), store=store) as url:
        id_ = live.request("POST", f"{url}/upload_image", files={"image_file": png(77)}).json()["image_id"]
    other = Echo()
    other.vision.fingerprint = "another"
    for engine in (make_engine(other), make_engine(Echo(vision=False))):
        with live.serving(engine, store=store) as url:
            reply = live.request("POST", f"{url}/ask_question", json={"image_id": id_, "question": "Still?"})
            assert reply.json()["answer"] == "77 Still?"


def test_an_image_expires(monkeypatch):
    now = [time.time()]
    monkeypatch.setattr(repository, "time", SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic))
    with live.serving(make_engine(), live.settings(store_ttl=3600)) as url:
        id_ = live.request("POST", f"{url}/upload_image", files={"image_file": png()}).json()["image_id"]
        body = {"image_id": id_, "question": "q"}
        assert live.request("POST", f"{url}/ask_question", json=body).status_code == 200
        now[0] += 3601
        refused(live.request("POST", f"{url}/ask_question", json=body), 404, "unknown_image")


def test_facts_about_the_server(client):
    info = ModelInfo.model_validate(client.get("/model").json())
    assert (info.name, info.has_attention_map, info.limits.max_question_characters) == ("echo-1", True, 1000)
    examples = Examples.model_validate(client.get("/examples").json())
    assert len(examples.examples) == 8
    for example in examples.examples:
        assert len(example.questions) == len(example.answers) > 0
        picture = client.get(example.image_path)
        assert picture.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(picture.content)).size[0] > 0
    image = uploaded(client)
    assert client.get(f"/images/{image.image_id}/questions").json()["questions"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics_count_what_happens(echo):
    with live.client_of(base_url=echo) as client:
        image = uploaded(client)
        for _ in range(2):
            client.post("/ask_question", json={"image_id": image.image_id, "question": "q"})
        client.get("/no/such/path/123")
        client.delete("/images/nothing")
        text = client.get("/metrics").text
    assert 'medical_vqa_answer_cache_total{result="hit"} 1.0' in text
    assert 'medical_vqa_batch_size_count{work="answer"} 1.0' in text
    assert 'medical_vqa_refused_total{code="unknown_image"} 1.0' in text
    assert 'handler="/ask_question"' in text
    assert "/no/such/path" not in text and image.image_id not in text
    assert "http_request_duration_seconds" in text


def test_security_headers_request_ids_and_no_cors(client):
    reply = client.get("/model", headers={"Origin": "https://evil.example", "X-Request-ID": "1" * 32})
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["x-request-id"] == "1" * 32
    assert client.get("/model", headers={"X-Request-ID": "a\tb<script>"}).headers["x-request-id"].isalnum()
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert "server" not in reply.headers


def test_cors_is_for_the_origins_that_are_named():
    with live.serving(make_engine(), live.settings(cors_origins="https://app.example", api_keys="0" * 64)) as url:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            reply = live.request("OPTIONS", f"{url}/ask_question", headers={"Origin": origin, **ask})
            assert ("access-control-allow-origin" in reply.headers) is allowed


def test_a_browser_may_use_every_method_of_a_route_from_an_origin_that_is_named():
    from medical_vqa.serving.api.app import create_app

    origin = "https://app.example"
    settings = live.settings(cors_origins=origin)
    description = create_app(make_engine(), settings).openapi()
    methods = {method.upper() for path in description["paths"].values() for method in path}
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        for method in methods:
            asked = {"Origin": origin, "Access-Control-Request-Method": method}
            assert client.options("/model", headers=asked).status_code == 200, method
    assert "PUT" in methods


def test_with_keys_only_their_clients_are_accepted():
    hashes = f"clinic:{hash_key('right')},{hash_key('second')}"
    with live.serving(make_engine(), live.settings(api_keys=hashes)) as url, live.client_of(base_url=url) as client:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            reply = client.post("/upload_image", files={"image_file": png()}, headers=header)
            refused(reply, 401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
        assert client.get("/model").status_code == client.get("/metrics").status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        for key in ("right", "second"):
            headers = {"Authorization": f"Bearer {key}"}
            assert client.post("/upload_image", files={"image_file": png()}, headers=headers).status_code == 200
        chat = client.get("/v1/models")
        assert chat.json()["error"]["type"] == "authentication_error"


def test_a_key_is_checked_before_the_body_is_read():
    import asyncio

    async def early(url):
        connection = live.Connection(url)
        reader, writer = await asyncio.open_connection(connection.host, connection.port)
        writer.write(b"POST /upload_image HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        head = await asyncio.wait_for(reader.readline(), live.PATIENCE)  # nothing of the body was sent
        await live.hang_up(writer)
        return head

    with live.serving(make_engine(), live.settings(api_keys=hash_key("k"))) as url:
        assert b"401" in asyncio.run(early(url))


def test_each_key_has_its_own_rate():
    hashes = f"{hash_key('one')},{hash_key('two')}"
    with live.serving(make_engine(), live.settings(api_keys=hashes, rate_limit="3/minute")) as url:

        def ask(key):
            return live.request("GET", f"{url}/model", headers={"Authorization": f"Bearer {key}"})

        assert [ask("one").status_code for _ in range(4)] == [200, 200, 200, 429]
        reply = ask("one")
        refused(reply, 429, "rate_limited")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert ask("two").status_code == 200
        assert live.request("GET", f"{url}/healthz").status_code == 200


def test_a_bug_is_500_without_its_details(capfd):
    with live.serving(make_engine()) as url:
        id_ = live.request("POST", f"{url}/upload_image", files={"image_file": png()}).json()["image_id"]
        reply = live.request("POST", f"{url}/ask_question", json={"image_id": id_, "question": "crash please"})
        message = refused(reply, 500, "internal")
        assert "ZeroDivision" not in message and "bug of the server" in message
        reply = live.request("POST", f"{url}/ask_question", json={"image_id": id_, "question": "refuse please"})
        assert refused(reply, 422, "invalid") == "I refuse; ask something else"


def test_the_description_has_examples_and_every_code(client):
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), (path, method)
            assert all(reply.get("description") for reply in operation["responses"].values())
    operation = described["paths"]["/ask_question"]["post"]
    assert set(operation["requestBody"]["content"]) >= {"application/json", "application/x-www-form-urlencoded"}
    assert {"400", "404", "413", "422", "429"} <= set(operation["responses"])
    assert "HTTPValidationError" not in json.dumps(described)
    assert client.get("/docs").status_code == 200


@pytest.fixture
def logged():
    """What is logged, as the server configures it."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers, root.level
    configure_logging("info", stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


def test_logs_have_ids_and_codes_and_no_content(logged):
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        image = uploaded(client)
        client.post("/ask_question", json={"image_id": image.image_id, "question": "Is Jane Doe ill?"})
        client.post("/ask_question", json={"image_id": image.image_id, "question": "crash Jane Doe"})
        client.get("/ask_question?name=Jane")
        client.head("/model")
        client.get("/healthz")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(r["route"], r["status"]) for r in requests][:2] == [("/upload_image", 200), ("/ask_question", 200)]
    assert [(r["method"], r["route"], r["status"]) for r in requests][-1] == ("HEAD", "/model", 200)
    assert all(len(r["request_id"]) == 32 and r["duration_ms"] > 0 for r in requests)
    assert "Jane" not in logged.getvalue() and image.image_id not in logged.getvalue()
    assert not any(r["route"] == "/healthz" for r in requests)
    assert any("ZeroDivisionError" in json.dumps(line) for line in lines)


def test_content_is_logged_only_where_a_setting_says_so(logged):
    with live.serving(make_engine(), live.settings(log_content=True)) as url, live.client_of(base_url=url) as client:
        image = uploaded(client)
        client.post("/ask_question", json={"image_id": image.image_id, "question": "What is it?"})
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    (answered,) = [line for line in lines if line["event"] == "answered"]
    assert (answered["question"], answered["answer"]) == ("What is it?", "100 What is it?")


def test_an_answer_from_the_cache_differs_in_its_times_alone(echo):
    with live.client_of(base_url=echo) as client:
        image_id = client.post("/upload_image", files={"image_file": png()}).json()["image_id"]
        body = {"image_id": image_id, "question": 'Is "timings":{} shown, \u00e9?', "attention_map": True}
        first, second, third = (client.post("/ask_question", json=body).json() for _ in range(3))
        other = client.post("/upload_image", files={"image_file": png()}).json()["image_id"]
        of_equal_picture = client.post("/ask_question", json=body | {"image_id": other}).json()
    times = [answer.pop("timings") for answer in (first, second, third, of_equal_picture)]
    assert [time["batch_size"] for time in times] == [1, 0, 0, 0]
    assert all(time.keys() == times[0].keys() for time in times)
    assert first == second == third == of_equal_picture | {"image_id": image_id}
    assert of_equal_picture["image_id"] == other
