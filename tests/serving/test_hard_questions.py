"""Pictures and questions at the edge, with the shipped model behind HTTP: an answer or one sentence."""

import io

import live
import numpy as np
import pytest
from PIL import Image

from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.load import load
from medical_vqa.serving.engine.answers import EngineOptions
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.errors import Problem

LIVER = shipped_bundle().parent / "slake-mini/imgs/xmlab22/source.jpg"
LONG = ("Does the picture contain liver and lung and heart " * 20)[:999] + "?"


@pytest.fixture(scope="module")
def client():
    loaded = load("shipped", device="cpu")
    engine = Engine(loaded.model, loaded.card, EngineOptions(deadline=live.PATIENCE), guards=loaded.guards)
    with live.serving(engine) as url, live.client_of(base_url=url) as client:
        yield client


def ask(client, question, data=None):
    file = {"image_file": ("a.png", data or LIVER.read_bytes())}
    return client.post("/ask", files=file, data={"question": question})


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (LONG, "question_too_long"),
        ("a" * 1000, "unknown_word"),
        ("\u0433\u0434\u0435 liver?", "foreign_language"),
        ("Does the picture contain \u809d\u810f?", None),
    ],
    ids=["long", "one word", "Cyrillic", "two languages"],
)
def test_a_hard_question_gets_an_answer_or_one_short_sentence(client, question, code):
    answer = Answer.model_validate(ask(client, question).json())
    assert (answer.reason_code, answer.abstained) == (code, code is not None)
    assert answer.reason is None or len(answer.reason) < 300


def test_more_than_a_thousand_characters_are_refused(client):
    reply = ask(client, "a" * 1001)
    assert reply.status_code == 422
    assert Problem.model_validate(reply.json()).detail.code == "invalid"


def test_a_picture_with_one_constant_channel_is_no_radiology_picture(client):
    gray = np.asarray(Image.open(LIVER).convert("L"))
    data = io.BytesIO()
    Image.fromarray(np.stack([gray, gray, np.zeros_like(gray)], -1)).save(data, "PNG")
    answer = ask(client, "Does the picture contain liver?", data.getvalue()).json()
    assert answer["reason_code"] == "not_radiology_colors"


def test_suggested_questions_are_chinese_on_request(client):
    uploaded = client.post("/upload_image", files={"image_file": ("a.jpg", LIVER.read_bytes())}).json()
    address = f"/images/{uploaded['image_id']}/questions"
    english, chinese = (client.get(address, params={"language": name}).json()["questions"] for name in ("en", "zh"))
    assert english == client.get(address).json()["questions"]
    assert len(chinese) > 3
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in question) for question in chinese)
    assert client.get(address, params={"language": "xx"}).status_code == 422


def test_every_suggested_question_is_answered_and_none_about_a_picture_that_is_refused(client):
    uploaded = client.post("/upload_image", files={"image_file": ("a.jpg", LIVER.read_bytes())}).json()
    questions = client.get(f"/images/{uploaded['image_id']}/questions").json()["questions"]
    assert 3 <= len(questions) <= 6
    assert not any(ask(client, question).json()["abstained"] for question in questions)
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "PNG")
    red = client.post("/upload_image", files={"image_file": ("red.png", data.getvalue())}).json()
    assert client.get(f"/images/{red['image_id']}/questions").json()["questions"] == []
