"""Conversations live on the server: nothing is lost with a connection, and nothing is asked twice."""

import hashlib
import io
import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from echo_model import Echo, make_engine
from live import PATIENCE, serving, settings
from PIL import Image

from medical_vqa.serving.conversations import conversations, open_conversations
from medical_vqa.serving.schema.conversations import Conversation


def begin(client: httpx2.Client) -> str:
    response = client.post("/conversations", json={})
    assert response.status_code == 201
    return response.json()["id"]


def add(client: httpx2.Client, conversation: str, scan: bytes, name: str = "scan.jpg") -> str:
    response = client.post(
        f"/conversations/{conversation}/images", files={"image_file": (name, scan)}, data={"name": name}
    )
    assert response.status_code == 201, response.text
    return response.json()["image"]["image_id"]


def wait_for_answers(client: httpx2.Client, conversation: str, count: int) -> dict:
    version = -1
    while True:
        body = client.get(f"/conversations/{conversation}", params={"after": version}).json()
        turns = [turn for image in body["cases"] for turn in image["turns"]]
        if sum(turn["status"] != "pending" for turn in turns) == count:
            return body
        version = body["version"]


@pytest.fixture
def client(echo):
    with httpx2.Client(base_url=echo, timeout=60) as client:
        yield client


def test_a_large_file_is_no_json_with_too_many_values(client):
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    assert out.getvalue().count(b",") > 10_000
    add(client, begin(client), out.getvalue())


def test_a_question_is_answered_in_a_later_version(client, scan):
    conversation = begin(client)
    image = add(client, conversation, scan)
    question = {"image_id": image, "key": "question-1", "question": "Which organ?"}
    assert client.post(f"/conversations/{conversation}/questions", json=question).status_code == 202
    body = wait_for_answers(client, conversation, 1)
    (turn,) = body["cases"][0]["turns"]
    assert turn["status"] == "answered"
    assert turn["answer"]["question"] == "Which organ?"


def test_a_question_that_is_sent_twice_is_asked_once(client, scan):
    conversation = begin(client)
    question = {"image_id": add(client, conversation, scan), "key": "question-1", "question": "Which organ?"}
    for _ in range(3):
        client.post(f"/conversations/{conversation}/questions", json=question)
    body = wait_for_answers(client, conversation, 1)
    assert [turn["key"] for turn in body["cases"][0]["turns"]] == ["question-1"]


def test_four_questions_at_once_are_all_answered(client, scan):
    conversation = begin(client)
    image = add(client, conversation, scan)
    for number in range(4):
        question = {"image_id": image, "key": f"question-{number}", "question": f"Question {number}?"}
        client.post(f"/conversations/{conversation}/questions", json=question)
    turns = wait_for_answers(client, conversation, 4)["cases"][0]["turns"]
    assert [turn["answer"]["question"] for turn in turns] == [f"Question {number}?" for number in range(4)]


def test_a_draft_is_kept_and_sending_clears_it(client, scan):
    conversation = begin(client)
    image = add(client, conversation, scan)
    draft = {"image_id": image, "draft": "Is there a fr"}
    assert client.put(f"/conversations/{conversation}/draft", json=draft).status_code == 204
    assert client.get(f"/conversations/{conversation}").json()["cases"][0]["draft"] == "Is there a fr"
    question = {"image_id": image, "key": "question-1", "question": "Is there a fracture?"}
    client.post(f"/conversations/{conversation}/questions", json=question)
    assert wait_for_answers(client, conversation, 1)["cases"][0]["draft"] == ""


def test_a_deleted_image_takes_its_questions_and_answers_along(client, scan):
    conversation = begin(client)
    image = add(client, conversation, scan)
    assert client.delete(f"/conversations/{conversation}/images/{image}").status_code == 204
    assert client.get(f"/conversations/{conversation}").json()["cases"] == []
    assert client.get(f"/images/{image}/picture").status_code == 404


@pytest.mark.parametrize("unknown", ["0" * 24 + "-" + "x" * 22, "nonsense"])
def test_an_unknown_conversation_is_told_from_an_unknown_image(client, unknown):
    response = client.get(f"/conversations/{unknown}")
    assert response.status_code == 404
    assert response.json()["detail"]["code"] == "unknown_conversation"


def test_a_conversation_survives_a_restart_and_its_open_question_is_answered(tmp_path, scan):
    store = str(tmp_path)
    with serving(make_engine(), settings(store=store)) as url, httpx2.Client(base_url=url, timeout=60) as client:
        conversation = begin(client)
        image = add(client, conversation, scan)
    path = next(path for path in tmp_path.rglob("*") if path.is_file() and conversation in path.name)
    stored = Conversation.model_validate_json(path.read_bytes()[path.read_bytes().index(b"{") :])
    turn = {"key": "question-1", "question": "Which organ?", "status": "pending", "asked_at": 0}
    pending = stored.model_dump(mode="json")
    pending["cases"][0]["turns"] = [turn]
    with serving(make_engine(), settings(store=store)) as url, httpx2.Client(base_url=url, timeout=60) as client:
        path.write_bytes(Conversation.model_validate(pending).model_dump_json().encode())
        body = wait_for_answers(client, conversation, 1)
    assert body["cases"][0]["image"]["image_id"] == image
    assert body["cases"][0]["turns"][0]["status"] == "answered"


def test_a_stop_does_not_wait_for_those_who_wait_for_a_change(monkeypatch):
    monkeypatch.setattr(conversations, "_LONGEST_WAIT", 3600.0)
    arrived, get = threading.Event(), open_conversations.OpenConversations.get

    async def get_and_report(self, conversation_id):
        entry = await get(self, conversation_id)
        arrived.set()
        return entry

    monkeypatch.setattr(open_conversations.OpenConversations, "get", get_and_report)
    with ThreadPoolExecutor() as pool, httpx2.Client(timeout=2 * PATIENCE) as client:
        with serving(make_engine(), settings()) as url:
            created = client.post(f"{url}/conversations", json={}).json()
            reading = pool.submit(client.get, f"{url}/conversations/{created['id']}", params={"after": 0})
            assert arrived.wait(PATIENCE)
        assert reading.result().json()["version"] == 0


def test_a_region_is_asked_about_beside_the_whole(client, scan):
    conversation = begin(client)
    region = {"shape": "box", "left": 4, "top": 4, "right": 40, "bottom": 30}
    question = {
        "image_id": add(client, conversation, scan), "key": "question-1", "question": "Which organ?", "region": region
    }  # fmt: skip
    assert client.post(f"/conversations/{conversation}/questions", json=question).status_code == 202
    (turn,) = wait_for_answers(client, conversation, 1)["cases"][0]["turns"]
    assert turn["region"] == region
    assert turn["region_answer"]["question"] == turn["answer"]["question"] == "Which organ?"
    assert turn["region_answer"]["answer"] != turn["answer"]["answer"]  # the part has another mean


def test_a_rating_is_kept_where_the_server_has_a_folder_for_it(tmp_path, scan):
    folder = tmp_path / "feedback"
    with (
        serving(make_engine(), settings(feedback=folder)) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
    ):
        assert client.get("/model").json()["collects_ratings"]
        conversation = begin(client)
        image = add(client, conversation, scan)
        question = {"image_id": image, "key": "question-1", "question": "Which organ?"}
        client.post(f"/conversations/{conversation}/questions", json=question)
        wait_for_answers(client, conversation, 1)
        rating = {
            "image_id": image, "key": "question-1", "correct": False, "correction": "Liver", "keep_picture": True
        }  # fmt: skip
        assert client.post(f"/conversations/{conversation}/ratings", json=rating).status_code == 204
        turn = client.get(f"/conversations/{conversation}").json()["cases"][0]["turns"][0]
        assert turn["rating"] == {"correct": False, "correction": "Liver"}
    (row,) = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert (row["answer"], row["source"]) == ("Liver", "corrected")
    assert (folder / row["image"]).is_file()


def test_a_server_without_a_folder_keeps_no_ratings(client, scan):
    conversation = begin(client)
    rating = {"image_id": add(client, conversation, scan), "key": "question-1", "correct": True}
    assert client.post(f"/conversations/{conversation}/ratings", json=rating).status_code == 404


def test_a_canceled_question_is_failed_and_the_next_one_answered(scan):
    model = Echo(hold=True)
    with serving(make_engine(model), settings()) as url, httpx2.Client(base_url=url, timeout=60) as client:
        conversation = begin(client)
        image = add(client, conversation, scan)
        question = {"image_id": image, "key": "question-1", "question": "Which organ?"}
        client.post(f"/conversations/{conversation}/questions", json=question)
        client.delete(f"/conversations/{conversation}/images/{image}/questions/question-1")
        (turn,) = client.get(f"/conversations/{conversation}").json()["cases"][0]["turns"]
        assert (turn["status"], turn["failure"]) == ("failed", "canceled")
        model.release()
        client.post(f"/conversations/{conversation}/questions", json={**question, "key": "question-2"})
        turns = wait_for_answers(client, conversation, 2)["cases"][0]["turns"]
        assert [turn["status"] for turn in turns] == ["failed", "answered"]


def test_a_conversation_is_known_to_its_tenant_alone(tmp_path, scan):
    keys = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("mine", "theirs")}
    lines = [f"- {{name: {name}, tenant: {name}, sha256: {digest}}}" for name, digest in keys.items()]
    keys_file = tmp_path / "keys.yaml"
    keys_file.write_text("\n".join(lines) + "\n")
    with serving(make_engine(), settings(keys_file=keys_file)) as url:
        mine, theirs = (
            httpx2.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {name}"}) for name in keys
        )
        with mine, theirs:
            conversation = begin(mine)
            add(mine, conversation, scan)
            assert theirs.get(f"/conversations/{conversation}").status_code == 404
            assert len(mine.get(f"/conversations/{conversation}").json()["cases"]) == 1


def test_an_image_whose_time_is_over_leaves_the_conversation(tmp_path, scan):
    with (
        serving(make_engine(), settings(store=str(tmp_path))) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
    ):
        conversation = begin(client)
        add(client, conversation, scan)
        path = next(tmp_path.rglob(f"{conversation}*"))
        stored = json.loads(path.read_bytes())
        assert stored["cases"][0]["expires_at"] > 1000 * time.time()
    stored["cases"][0]["expires_at"] = 1
    path.write_text(json.dumps(stored))
    with (
        serving(make_engine(), settings(store=str(tmp_path))) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
    ):
        assert client.get(f"/conversations/{conversation}").json()["cases"] == []


def test_the_page_is_served_with_a_policy_that_allows_nothing_from_outside():
    with serving(make_engine(), settings(page=True)) as url:
        response = httpx2.get(f"{url}/page", timeout=60)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert httpx2.get(f"{url}/page/page.js", timeout=60).headers["content-type"].startswith("text/javascript")
        assert httpx2.get(f"{url}/page/../settings.py", timeout=60).status_code == 404


def test_a_conversation_is_rendered_as_its_schema_says_whatever_its_texts_are(client, scan):
    conversation = begin(client)
    image = add(client, conversation, scan, name='x","turns":[],"cases":[]')
    for number in range(2):
        question = {"image_id": image, "key": f"question-{number}", "question": '"turns":[] and "cases":[] \u00e9?'}
        assert client.post(f"/conversations/{conversation}/questions", json=question).status_code == 202
    body = wait_for_answers(client, conversation, 2)
    assert Conversation.model_validate(body).model_dump(mode="json") == body
    assert [turn["key"] for turn in body["cases"][0]["turns"]] == ["question-0", "question-1"]


def test_the_questions_of_a_conversation_are_bounded_together(client, scan, monkeypatch):
    monkeypatch.setattr(conversations, "MAX_ALL_TURNS", 3)
    conversation = begin(client)
    images = [add(client, conversation, scan) for _ in range(2)]
    statuses = [
        client.post(
            f"/conversations/{conversation}/questions",
            json={"image_id": images[number % 2], "key": f"question-{number}", "question": "q"},
        ).status_code
        for number in range(4)
    ]
    assert statuses == [202, 202, 202, 422]


def test_what_many_open_conversations_hold_is_bounded_and_read_from_the_store_again(client, scan, monkeypatch):
    monkeypatch.setattr(open_conversations, "_OPEN_TURNS", 2)
    ids = []
    for number in range(4):
        ids.append(begin(client))
        question = {"image_id": add(client, ids[-1], scan), "key": f"question-{number}", "question": "q"}
        client.post(f"/conversations/{ids[-1]}/questions", json=question)
        wait_for_answers(client, ids[-1], 1)
    for number, conversation in enumerate(ids):
        (case,) = client.get(f"/conversations/{conversation}").json()["cases"]
        assert [turn["key"] for turn in case["turns"]] == [f"question-{number}"]


def test_a_reader_too_many_ends_the_wait_of_the_oldest_of_the_client_with_most_of_them(monkeypatch):
    monkeypatch.setattr(conversations, "_LONGEST_WAIT", PATIENCE)
    ended = queue.SimpleQueue()

    def read(url, conversation, address, number):
        with httpx2.Client(transport=httpx2.HTTPTransport(local_address=address), timeout=PATIENCE) as client:
            client.get(f"{url}/conversations/{conversation}", params={"after": 9})
            ended.put(number)

    with ThreadPoolExecutor(4) as pool, serving(make_engine(), settings(max_connections=12)) as url:
        with httpx2.Client(base_url=url) as client:
            conversation = begin(client)
        for number, address in enumerate(["127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"]):
            pool.submit(read, url, conversation, address, number)
            time.sleep(0.3)  # they arrive in this order
        assert ended.get(timeout=PATIENCE) == 1
        assert ended.empty()  # the others end with the server
