"""The server in front of a remote model: upload, ask, stream, cancel, guards, conversation, several pictures."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import live
from dicom_files import made

from medical_vqa.app.case import finish_asking, open_case, start_asking
from medical_vqa.app.client import Backend
from medical_vqa.models.questions.image_kind import BODY_PART_QUESTION
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.pipelines.load import remote
from medical_vqa.pipelines.serve import remote_engine
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.engine import remote as remote_module
from medical_vqa.serving.server import drain_seconds

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1", "localhost"])]


def serving(url: str, model: str = "m", **settings):
    endpoint = {name: settings.pop(name) for name in ("max_pictures", "turns", "tries", "windows") if name in settings}
    loaded = remote(Endpoint(model, url, **{"tries": 1, "max_tokens": 8, **endpoint}), concurrency=300)
    chosen = live.settings(**{"remote_deadline": live.PATIENCE, **settings})
    return live.serving(remote_engine(loaded, chosen), chosen)


@pytest.fixture
def server(fake):
    with serving(fake.count_pictures().url) as url:
        fake.asked.clear()
        yield url


def upload(url: str, gray: int = 100) -> str:
    data = live.png(gray, 32) if gray != 100 else textured()
    return live.request("POST", f"{url}/upload_image", files={"image_file": ("a.png", data)}).json()["image_id"]


def textured(seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32), np.uint8)).save(out, "PNG")
    return out.getvalue()


def ask(url: str, **body):
    body = {"question": "Is it?", **body}
    return live.request("POST", f"{url}/ask_question", json=body)


def events(url: str, **body):
    reply = live.request("POST", f"{url}/ask_question/stream", json={"question": "Is it?", **body})
    blocks = [block.split("\n") for block in reply.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_an_uploaded_picture_is_asked_about(server, fake):
    answer = ask(server, image_id=upload(server)).json()
    assert (answer["answer"], answer["model"]["family"], answer["abstained"]) == ("Yes", "openai", False)
    assert answer["confidence_basis"] == "probability"
    info = live.request("GET", f"{server}/model").json()
    assert (info["max_turns"], info["max_pictures"], info["streams"], info["has_attention_map"]) == (8, 4, True, False)
    assert live.request("GET", f"{server}/readyz").status_code == 200


def test_the_answer_is_streamed_and_ends_with_the_whole(server, fake):
    fake.stream("Le", "ft lung")
    names = [(name, data.get("text")) for name, data in events(server, image_id=upload(server))]
    assert names == [("text", "Le"), ("text", "Left lung"), ("answer", None)]


def test_the_conversation_is_sent_and_bounded(server, fake):
    turns = [{"question": f"Q{n}?", "answer": "A"} for n in range(20)]
    answer = ask(server, image_id=upload(server), turns=turns).json()
    assert answer["turns_read"] == 8
    assert len(fake.asked[-1]["messages"]) == 17


def test_several_pictures_are_sent_and_too_many_are_refused(server, fake):
    first, second = upload(server), upload(server)
    assert ask(server, image_id=first, other_image_ids=[second]).status_code == 200
    assert sum(part["type"] == "image_url" for part in fake.asked[-1]["messages"][0]["content"]) == 2
    refused = ask(server, image_id=first, other_image_ids=[second] * 4)
    assert refused.status_code == 422
    assert "takes at most 4 pictures in one question, got 5" in refused.json()["detail"]["message"]
    files = [("image_file", ("a.png", textured())), ("other_files", ("b.png", textured(1)))]
    reply = live.request("POST", f"{server}/ask", files=files, data={"question": "Is it?"})
    assert reply.json()["answer"] == "Yes"


def test_a_picture_that_shows_nothing_is_withheld(server, fake):
    answer = ask(server, image_id=upload(server, gray=7)).json()
    assert (answer["abstained"], answer["reason_code"]) == (True, "constant_picture")


def test_a_further_picture_that_shows_nothing_is_withheld(server, fake):
    answer = ask(server, image_id=upload(server), other_image_ids=[upload(server, gray=7)]).json()
    assert (answer["abstained"], answer["reason_code"]) == (True, "constant_picture")


def test_an_empty_answer_is_withheld(server, fake):
    fake.say("<think>hm")
    answer = ask(server, image_id=upload(server)).json()
    assert (answer["abstained"], answer["reason_code"]) == (True, "empty_answer")


def test_an_answer_that_declines_in_words_is_withheld(server, fake):
    fake.say("I'm sorry, but I can't interpret medical images.")
    answer = ask(server, image_id=upload(server)).json()
    assert (answer["abstained"], answer["reason_code"]) == (True, "model_declined")


def test_how_much_the_picture_matters_is_measured_on_request(server, fake):
    fake.say("Yes")
    image = upload(server)
    assert ask(server, image_id=image).json()["image_dependence"] is None
    answer = ask(server, image_id=image, check_image=True).json()
    assert (answer["image_dependence"], answer["source"]) == (0.0, "usual")


def test_the_body_part_of_a_picture_is_asked_once_and_the_gray_picture_is_encoded_once(server, fake):
    fake.say("Yes")
    image = upload(server)
    for question in ("Is it?", "Is it large?"):
        ask(server, image_id=image, question=question, check_image=True)
    texts = [json.dumps(body["messages"]) for body in fake.asked]
    assert sum(BODY_PART_QUESTION in text for text in texts) == 1
    assert len(texts) == 5  # two questions, each about the picture and about gray, and the body part
    live.request("DELETE", f"{server}/images/{image}")
    fake.asked.clear()
    ask(server, image_id=upload(server), check_image=True)
    assert len(fake.asked) == 3  # nothing about a deleted picture is kept


def test_when_the_asker_leaves_the_request_is_closed(server, fake):
    image = upload(server)
    fake.stream("Left", endless=True)
    body = {"image_id": image, "question": "Is it?"}
    with live.client_of() as client, client.stream("POST", f"{server}/ask_question/stream", json=body) as reply:
        assert next(line for line in reply.iter_lines() if line.startswith("event:")) == "event: text"
    assert fake.left.wait(live.PATIENCE)


def test_an_endpoint_that_is_down_is_one_sentence_and_a_status(server, fake):
    image = upload(server)
    fake.failures = [503] * 20  # the server looks whether the endpoint is back, too
    refused = ask(server, image_id=image)
    assert (refused.status_code, refused.json()["detail"]["code"]) == (503, "engine_unavailable")
    assert refused.headers["retry-after"] == "5"
    name, problem = events(server, image_id=image)[-1]
    assert (name, problem["detail"]["code"]) == ("problem", "engine_unavailable")


@pytest.mark.parametrize(
    ("status", "words", "sentence"),
    [
        (401, "invalid key", "refused the key"),
        (404, "The model `m` does not exist", "it has renamed; correct the name"),
    ],
)
def test_a_wrong_key_or_name_is_the_engines_failure_and_not_the_questions(server, fake, status, words, sentence):
    image, fake.models = upload(server), ["renamed"]
    fake.answer = lambda _: (status, {"error": {"message": words}})
    problem = ask(server, image_id=image).json()["detail"]
    assert problem["code"] == "engine_refused"
    assert sentence in problem["message"]


def test_a_conversation_longer_than_the_engine_reads_has_openai_s_code_and_the_engine_s_numbers(server, fake):
    words = "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens."
    fake.answer = lambda _: (400, {"error": {"message": words, "code": "context_length_exceeded"}})
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="m", messages=chat_messages())
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
        assert "2048 tokens" in refused.value.body["message"]
        with pytest.raises(openai.APIError) as within_the_stream:
            list(client.chat.completions.create(model="m", messages=chat_messages(), stream=True))
        assert (within_the_stream.value.code, within_the_stream.value.param) == ("context_length_exceeded", "messages")


def test_a_server_with_a_wrong_name_does_not_start_and_says_why(fake, refused):
    fake.answer = lambda _: (404, {"error": {"message": "The model `m` does not exist"}})
    fake.models = ["medgemma"]
    assert "has no model m; it has medgemma" in refused("serve", "--model", "openai:m", "--base-url", fake.url)


def test_a_server_starts_before_its_engine_and_is_ready_when_the_engine_is(fake):
    fake.count_pictures()
    fake.failures = [503, 503]
    with serving(fake.url) as url:
        image = upload(url)
        assert ask(url, image_id=image).status_code == 200
        assert live.request("GET", f"{url}/readyz").status_code == 200


def test_two_hundred_clients_get_their_own_answers(server, fake):
    fake.answer = lambda body: (
        200,
        {"choices": [{"message": {"content": body["messages"][0]["content"][1]["text"].split()[-1]}}]},
    )
    image = upload(server)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda n: ask(server, image_id=image, question=f"Say {n}").json(), range(200)))
    assert [answer["answer"] for answer in answers] == [str(n) for n in range(200)]


def test_openai_clients_read_turns_and_stream(server, fake):
    fake.stream("Left", " lung")
    url = f"data:image/png;base64,{base64.b64encode(textured()).decode()}"
    messages = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "CT?"}],
        },
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Where?"},
    ]
    with openai.OpenAI(base_url=f"{server}/v1", api_key="x", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="m", messages=messages, stream=True))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert texts == ["Left", " lung"]
    assert [message["role"] for message in fake.asked[-1]["messages"]] == ["user", "assistant", "user"]


def streamed(server, **sent):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="x", max_retries=0) as client:
        return list(client.chat.completions.create(model="m", messages=chat_messages(), stream=True, **sent))


def chat_messages():
    url = f"data:image/png;base64,{base64.b64encode(textured()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is shown?"}]
    return [{"role": "user", "content": parts}]


def content_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_ends_where_the_client_says(server, fake):
    fake.stream("Left", " lu", "ng is", " shown")
    for sent, text, reason in (
        ({"stop": "lung"}, "Left ", "stop"),
        ({"max_tokens": 2}, "Left lung", "length"),
        ({}, "Left lung is shown", "stop"),
    ):
        chunks = streamed(server, **sent, stream_options={"include_usage": True})
        assert (content_of(chunks), chunks[-2].choices[0].finish_reason) == (text, reason)
        assert chunks[-1].usage.completion_tokens == len(text.split())


def test_a_stream_that_the_engine_cut_off_ends_with_length(server, fake):
    fake.stream("There ", "is no")
    fake.events[-2] = fake.events[-2].replace('"stop"', '"length"')
    chunks = streamed(server)
    assert (content_of(chunks), chunks[-1].choices[0].finish_reason) == ("There is no", "length")
    assert chunks[-1].medical_vqa["cut_off"]
    assert streamed(server, stop="is")[-1].choices[0].finish_reason == "stop"


def test_an_abstention_follows_what_was_streamed(server, fake):
    fake.stream("I cannot ", "interpret medical images.")
    chunks = streamed(server)
    answer = chunks[-1].medical_vqa
    assert answer["abstained"]
    assert content_of(chunks).startswith(f"I cannot interpret medical images.\n\n{answer['reason']}")


def test_the_page_sends_the_turns_and_the_earlier_images_that_were_chosen(server, fake):
    backend = Backend(server)
    model = backend.model()
    prior, case = open_case(backend, "prior.png", textured(1)), open_case(backend, "now.png", textured(2))
    case.others = [prior]
    fake.stream("Left", " lung")
    for question in ("What is shown?", "And now?"):
        asking = start_asking([backend], case, question, models=[model], attention_map=False)
        assert asking.wait(live.PATIENCE)
        turn = finish_asking(case, asking)
    assert (turn.replies[0].answer, turn.other_names, turn.replies[0].turns_read) == ("Left lung", ("prior.png",), 1)
    messages = fake.asked[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [part["type"] for part in messages[0]["content"]] == ["image_url", "image_url", "text"]


def test_a_question_that_is_canceled_on_the_page_ends_at_the_engine(server, fake):
    backend = Backend(server)
    case = open_case(backend, "now.png", textured())
    fake.stream("Left", endless=True)
    asking = start_asking([backend], case, "What is shown?", models=[backend.model()], attention_map=False)
    while asking.texts != ["Left"]:
        assert not asking.wait(0.01)
    asking.cancel()
    assert finish_asking(case, asking).replies[0].code == "canceled"
    assert fake.left.wait(live.PATIENCE)


@pytest.mark.slow
def test_a_real_engine_behind_the_server_is_killed_and_comes_back(llava):
    with serving(llava.url, llava.model, turns=8) as url:
        image = upload(url)
        assert ask(url, image_id=image).status_code == 200
        assert events(url, image_id=image, question="What is it?")[-1][0] == "answer"
        llava.kill()
        refused = ask(url, image_id=image, question="And now?")
        assert refused.json()["detail"]["code"] == "engine_unavailable"
        llava.start()
        assert ask(url, image_id=image, question="And now?").status_code == 200


@pytest.mark.parametrize(("deadline", "seconds"), [(120.0, 121), (3.0, 8)])
def test_a_stop_waits_as_long_as_a_remote_model_may_take(fake, deadline, seconds):
    settings = live.settings(remote_deadline=deadline, deadline=7, drain_timeout=8)
    engine = remote_engine(remote(Endpoint("m", fake.url)), settings)
    assert drain_seconds(create_app(engine, settings), settings) == seconds
    engine.model.close()


def test_a_server_stops_while_the_endpoint_does_not_answer(fake, monkeypatch):
    monkeypatch.setattr(remote_module, "_RECHECK_SECONDS", 0.0)
    engine = remote_engine(remote(Endpoint("m", fake.count_pictures().url)), live.settings())
    engine.start()
    asked, released = threading.Event(), threading.Event()

    def hang(_):
        asked.set()
        return 200 if released.wait(3 * live.PATIENCE) else 500, fake.reply

    fake.answer = hang
    engine._up = False
    assert asked.wait(live.PATIENCE)
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(live.PATIENCE)
    stopped = not closing.is_alive()
    released.set()
    assert stopped
    assert not engine._watch.is_alive()


# --- series -----------------------------------------------------------------------------------------------------------

MEDGEMMA_WINDOWS = ((0.0, 2048.0), (40.0, 350.0), (40.0, 80.0))


def ct(slices: int) -> bytes:
    """A zip archive of CT slices whose values rise from -1000 HU to 1000 HU within each."""
    values = np.linspace(-1000, 1000, 32 * 32).reshape(32, 32).astype(np.int16)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for z in range(slices):
            header = {
                "ImagePositionPatient": [0, 0, 3 * z],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [1.0, 1.0],
                "SeriesInstanceUID": "1.2.3",
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
                "Modality": "CT",
                "RescaleSlope": "1",
                "RescaleIntercept": "0",
            }
            archive.writestr(f"{z}.dcm", made(values + z, **header))
    return out.getvalue()


def series_of(url: str, slices: int) -> str:
    files = {"files": ("ct.zip", ct(slices))}
    return live.request("POST", f"{url}/series", files=files).json()["series"][0]["image_id"]


def sent_pictures(body) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def test_a_volume_is_sent_as_all_its_slices_with_the_plane_named_and_each_in_three_windows(fake):
    with serving(fake.count_pictures().url, max_pictures=85, windows=MEDGEMMA_WINDOWS) as server:
        image = series_of(server, 85)
        assert ask(server, image_id=image).json()["answer"] == "Yes"
        pictures = sent_pictures(fake.asked[-1])
        assert (len(pictures), {picture.mode for picture in pictures}) == (85, {"RGB"})
        red, green, blue = np.asarray(pictures[0]).reshape(-1, 3).T
        assert [int((band == 0).mean() * 100) for band in (red, green, blue)] == [0, 43, 50]  # below each window
        text = fake.asked[-1]["messages"][0]["content"][-1]["text"]
        assert text.startswith("The pictures are all 85 axial slices of one series, in the order of their position.\n")
        answer = ask(server, image_id=image, plane="coronal").json()
        assert len(answer["slices"]) == 32
        assert "all 32 coronal slices" in fake.asked[-1]["messages"][0]["content"][-1]["text"]


def test_of_a_larger_volume_as_many_slices_are_sent_as_the_model_takes(server, fake):
    answer = ask(server, image_id=series_of(server, 40)).json()
    assert [one["frame"] for one in answer["slices"]] == [5, 15, 25, 35]
    assert "4 of the 40 axial slices" in fake.asked[-1]["messages"][0]["content"][-1]["text"]
    one = ask(server, image_id=answer["image_id"], frame=7).json()
    assert (one["frame"], len(sent_pictures(fake.asked[-1]))) == (7, 1)


@pytest.fixture
def page(fake):
    """A conversation of the page, and a function that uploads a picture into it."""
    with serving(fake.count_pictures().url, page=True) as server, live.client_of(base_url=server) as client:
        conversation = f"/conversations/{client.post('/conversations').json()['id']}"

        def add(seed: int) -> str:
            files = {"image_file": ("a.png", textured(seed))}
            return client.post(f"{conversation}/images", files=files).json()["image"]["image_id"]

        yield client, conversation, add


def test_a_question_of_the_page_about_two_pictures(page, fake):
    client, conversation, add = page
    prior, current = add(1), add(2)
    body = {"image_id": current, "key": "12345678", "question": "What changed?", "other_image_ids": [prior]}
    assert client.post(f"{conversation}/questions", json=body).json()["other_image_ids"] == [prior]
    version, status = -1, "pending"
    while status == "pending":
        state = client.get(conversation, params={"after": version}).json()
        version, status = state["version"], state["cases"][1]["turns"][0]["status"]
    assert status == "answered"
    assert len(sent_pictures(fake.asked[-1])) == 2
    unknown = client.post(f"{conversation}/questions", json=body | {"key": "23456789", "other_image_ids": ["x"]})
    assert (unknown.status_code, unknown.json()["detail"]["code"]) == (404, "unknown_image")
    many = client.post(f"{conversation}/questions", json=body | {"key": "34567890", "other_image_ids": [prior] * 4})
    assert "takes at most 4 pictures in one question, got 5" in many.json()["detail"]["message"]


def test_a_stream_that_pauses_is_shown_up_to_the_pause(page, fake):
    client, conversation, add = page
    image = add(0)
    fake.stream("The left ", "lung", endless=True)
    question = {"image_id": image, "key": "12345678", "question": "What is shown?"}
    client.post(f"{conversation}/questions", json=question)
    version, text = -1, None
    while text != "The left lung":
        state = client.get(conversation, params={"after": version}).json()
        version, turn = state["version"], state["cases"][0]["turns"][0]
        text = turn["text"]
        assert turn["status"] == "pending"
    client.delete(f"{conversation}/images/{image}/questions/12345678")
    assert fake.left.wait(live.PATIENCE)
