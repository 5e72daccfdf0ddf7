"""Tenants: what belongs to one is unknown to the others, by status, field and cache; and each has its turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import foreign_ids
import live
import nibabel
import numpy as np
import pytest
import yaml
from echo_model import Echo, make_engine, wait_for_queue, wait_until
from live import png

from medical_vqa.errors import ConfigError
from medical_vqa.serving.clients import Client, set_current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.key_file import read_key_file
from medical_vqa.serving.middleware import access
from medical_vqa.serving.middleware.access import hash_key

OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def _closed():
    yield
    while OPENED:
        OPENED.pop().close()


class Caller:
    """A client with a key."""

    def __init__(self, url, key):
        self.http = live.client_of(base_url=url, headers={"Authorization": f"Bearer {key}"})
        OPENED.append(self.http)

    def upload(self, gray=100):
        reply = self.http.post("/upload_image", files={"image_file": png(gray)})
        assert reply.status_code == 200, reply.text
        return reply.json()["image_id"]

    def ask(self, image_id, question="What is it?"):
        return self.http.post("/ask_question", json={"image_id": image_id, "question": question})


@contextlib.contextmanager
def serving(*names, engine=None, **options):
    """A server with a key of each name; yields its URL and a caller for each."""
    keys = ",".join(f"{name}:{hash_key(name)}" for name in names)
    with live.serving(engine or make_engine(), live.settings(api_keys=keys, **options)) as url:
        yield (url, *(Caller(url, name) for name in names))


@pytest.fixture
def key_file(tmp_path):
    """Writes a file of keys."""
    path = tmp_path / "keys.yaml"

    def write(*entries):
        text = [{"sha256": hash_key(entry["name"]), **entry} for entry in entries]
        path.write_text(yaml.safe_dump(text))
        return path

    return write


def test_a_key_that_is_set_twice_for_a_client_is_refused(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(f"- sha256: {hash_key('a')}\n  name: a\n  weight: 1\n  weight: 2\n")
    with pytest.raises(ConfigError, match="line 4: the key 'weight' is set twice, first in line 3; keep one of them"):
        read_key_file(path)


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.fixture
def series_file(tmp_path):
    """A series of three slices."""
    values = np.arange(12 * 16 * 3, dtype=np.int16).reshape(16, 12, 3) * 10
    path = tmp_path / "series.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1])), path)
    return path.read_bytes()


def test_every_route_with_an_id_is_tried_by_another_tenant(tmp_path, series_file):
    """Lists the routes by the API's description, so that a new one is noticed."""
    app = live.create_app(make_engine(), live.settings(jobs=tmp_path, page=True))
    tried = {route for route, ways in foreign_ids.operations(foreign_ids.Ids.unknown()).items() if ways}
    assert tried == foreign_ids.routes_with_ids(app.openapi())


@pytest.mark.parametrize(
    ("kind", "operations_count"), [("memory", 80), ("folder", 80), pytest.param("memory", 600, marks=pytest.mark.slow)]
)
def test_no_operation_on_what_another_tenant_owns_differs_from_one_on_what_nobody_owns(
    tmp_path, series_file, kind, operations_count
):
    store = "memory://" if kind == "memory" else str(tmp_path / "store")
    choose = random.Random(0)
    options = {"store": store, "jobs": tmp_path / "jobs", "feedback": tmp_path / "ratings"}
    with serving("anna", "boris", **options) as (_, anna, boris):
        owned = foreign_ids.create(anna.http, series_file)
        operations = foreign_ids.operations(foreign_ids.create(boris.http, series_file))
        routes = list(operations) * (1 + operations_count // len(operations))
        choose.shuffle(routes)
        for route in routes[:operations_count]:
            operation = choose.choice(operations[route])
            replies = [operation(boris.http, ids) for ids in (owned, foreign_ids.Ids.unknown())]
            assert foreign_ids.seen_by_client(replies[0]) == foreign_ids.seen_by_client(replies[1]), route
            assert foreign_ids.reaches_nothing(replies[0]), (route, replies[0].text)
        assert foreign_ids.everything_is_there(anna.http, owned)


def test_equal_pictures_of_two_tenants_have_ids_with_nothing_in_common_and_no_shared_answer():
    with serving("anna", "boris") as (_, anna, boris):
        one, two = anna.upload(), boris.upload()
        assert one[:24] != two[:24]
        assert anna.ask(one).json()["timings"]["batch_size"] == 1
        assert boris.ask(two).json()["timings"]["batch_size"] == 1  # computed, although anna has asked the same
        assert anna.ask(one).json()["timings"]["batch_size"] == 0


def test_two_keys_of_a_tenant_share_its_images(key_file):
    file = key_file({"name": "old", "tenant": "ward"}, {"name": "new", "tenant": "ward"}, {"name": "other"})
    with live.serving(make_engine(), live.settings(keys_file=file)) as url:
        image_id = Caller(url, "old").upload()
        assert [Caller(url, key).ask(image_id).status_code for key in ("old", "new", "other")] == [200, 200, 404]


def test_answers_and_questions_are_forgotten_with_their_image():
    engine = make_engine()
    with live.serving(engine) as url, live.client_of(base_url=url) as client:
        body = {"image_id": client.post("/upload_image", files={"image_file": png()}).json()["image_id"]}
        client.post("/ask_question", json=body | {"question": "A secret?"})
        assert len(engine.cache) == 1
        client.delete(f"/images/{body['image_id']}")
        assert len(engine.cache) == 0


def test_an_answer_that_is_computed_while_its_image_is_deleted_is_not_cached():
    model = Echo(hold=True)
    engine = make_engine(model)

    async def work():
        engine.start()
        asking = asyncio.create_task(engine.ask("abc", model.vision.encode([_black()])[0], "q"))
        await model.begun()
        engine.forget("ab")
        model.release()
        return await asking

    answer = asyncio.run(work())
    engine.close()
    assert answer.answer.prediction.answer == "0 q" and len(engine.cache) == 0


def test_a_deletion_on_one_server_removes_the_answers_of_the_other(tmp_path, monkeypatch):
    from medical_vqa.serving.image_store import repository

    monkeypatch.setattr(repository, "RECHECK_SECONDS", 0.0)
    engine, on_store = make_engine(), live.settings(store=str(tmp_path))
    with live.serving(engine, on_store) as one, live.serving(make_engine(), on_store) as two:
        image_id = live.request("POST", f"{one}/upload_image", files={"image_file": png()}).json()["image_id"]
        body = {"image_id": image_id, "question": "q"}
        assert live.request("POST", f"{one}/ask_question", json=body).status_code == 200
        live.request("DELETE", f"{two}/images/{image_id}")
        assert live.request("POST", f"{one}/ask_question", json=body).status_code == 404
    assert len(engine.cache) == 0


# --- roles, keys, quotas ----------------------------------------------------------------------------------------------


def test_a_role_allows_its_routes_and_no_others(key_file):
    file = key_file(*({"name": name, "tenant": "t", "roles": [name]} for name in ("ask", "upload", "admin")))
    with live.serving(make_engine(), live.settings(keys_file=file)) as url:
        callers = [Caller(url, name) for name in ("ask", "upload", "admin")]
        image_id = callers[1].upload()
        uploads = [caller.http.post("/upload_image", files={"image_file": png()}) for caller in callers]
        assert [reply.status_code for reply in uploads] == [403, 200, 403]
        assert uploads[0].json()["detail"]["code"] == "forbidden"
        assert [caller.ask(image_id).status_code for caller in callers] == [200, 403, 403]
        assert [caller.http.get("/metrics").status_code for caller in callers] == [403, 403, 200]
        assert [caller.http.get("/model").status_code for caller in callers] == [200, 200, 200]
        assert [caller.http.delete(f"/images/{image_id}").status_code for caller in callers] == [403, 204, 403]


def test_keys_are_exchanged_without_a_restart_and_a_damaged_file_changes_nothing(key_file, monkeypatch):
    monkeypatch.setattr(access, "_RECHECK_SECONDS", 0.0)
    file = key_file({"name": "old", "tenant": "ward"})
    with live.serving(make_engine(), live.settings(keys_file=file)) as url:
        old, new = Caller(url, "old"), Caller(url, "new")
        image_id = old.upload()
        assert new.ask(image_id).status_code == 401
        key_file({"name": "old", "tenant": "ward"}, {"name": "new", "tenant": "ward"})
        assert [caller.ask(image_id).status_code for caller in (old, new)] == [200, 200]
        file.write_text("- name: [")
        assert [caller.ask(image_id).status_code for caller in (old, new)] == [200, 200]
        key_file({"name": "new", "tenant": "ward"})
        assert [caller.ask(image_id).status_code for caller in (old, new)] == [401, 200]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: x", "entry 0.sha256: field required"),
        ("- {name: x, sha256: abc}", "entry 0.sha256"),
        (f"- {{name: x, sha256: {'a' * 64}, roles: [root]}}", "entry 0.roles"),
        (f"- {{name: x, sha256: {'a' * 64}, rate_limit: 0/minute}}", "entry 0.rate_limit"),
        ("{", "expected YAML"),
    ],
)
def test_a_file_of_keys_that_makes_no_sense_stops_the_start(tmp_path, text, message):
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        access.ApiKeys(file=path)


def test_a_quota_of_images_or_bytes_is_429_until_one_is_deleted(key_file):
    file = key_file({"name": "few", "max_images": 2}, {"name": "small", "max_bytes": 100}, {"name": "free"})
    with live.serving(make_engine(), live.settings(keys_file=file)) as url:
        few, small, free = (Caller(url, name) for name in ("few", "small", "free"))
        images = [few.upload(gray) for gray in (1, 2)]
        full = few.http.post("/upload_image", files={"image_file": png(3)})
        assert (full.status_code, full.json()["detail"]["code"]) == (429, "quota_exceeded")
        assert int(full.headers["retry-after"]) > 0
        few.http.delete(f"/images/{images[0]}")
        few.upload(3)
        assert small.http.post("/upload_image", files={"image_file": png()}).status_code == 429
        assert [free.upload(gray) for gray in range(4)]


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_every_question_counts_towards_the_rate():
    with serving("anna", rate_limit="10/hour") as (_, anna):
        image_id = anna.upload()
        body = {"image_id": image_id, "questions": [f"q{n}" for n in range(8)]}
        assert anna.http.post("/ask_questions", json=body).status_code == 200  # 1 upload and 8 questions
        assert anna.ask(image_id).status_code == 200
        assert anna.ask(image_id).status_code == 429


def _black():
    return np.zeros((8, 8, 1), np.uint8)


def _asking(engine, model, client, count):
    """Tasks of one client, each with a question of its own."""

    async def ask(n):
        set_current_client(client)
        return await engine.ask(f"picture of {client.name}", model.vision.encode([_black()])[0], f"{client.name} {n}")

    return [asyncio.create_task(ask(n)) for n in range(count)]


def order_of(*loads, batch_size=1, **options):
    """The order in which questions are computed that wait at the same time; the first load begins alone."""
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=batch_size, clock=model.questions_answered, **options)

    async def work():
        engine.start()
        first = _asking(engine, model, Client(name="first"), 1)
        await model.begun()
        tasks = []
        for client, count in loads:
            tasks += _asking(engine, model, client, count)
            await wait_for_queue(engine, len(tasks))
        model.release()
        await asyncio.gather(*first, *tasks)

    asyncio.run(work())
    engine.close()
    return [question.split()[0] for question in model.questions[1:]]


def test_a_client_with_one_question_waits_for_one_of_a_client_with_thirty_two():
    order = order_of((Client(name="heavy"), 32), (Client(name="polite"), 1))
    assert order.index("polite") <= 1


def test_tenants_are_served_by_their_weights():
    order = order_of((Client(name="a", tenant="a", weight=3.0), 30), (Client(name="b", tenant="b"), 30))
    assert order[:20].count("a") == 15


def test_the_keys_of_a_tenant_share_its_turn_and_each_has_its_part_of_it():
    order = order_of(
        (Client(name="heavy", tenant="a"), 9), (Client(name="polite", tenant="a"), 1), (Client(name="b"), 9)
    )
    assert order.index("polite") <= 3
    order = order_of((Client(name="a1", tenant="a"), 9), (Client(name="a2", tenant="a"), 9), (Client(name="b"), 9))
    assert order[:10].count("b") == 5


def test_a_newcomer_waits_for_one_step_of_another_clients_batch():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=24, clock=model.questions_answered, step_seconds=8.0)

    async def work():
        heavy = _asking(engine, model, Client(name="heavy"), 24)
        await wait_for_queue(engine, 24)
        engine.start()
        await model.begun()
        polite = _asking(engine, model, Client(name="polite"), 1)
        await wait_for_queue(engine, 1)
        model.release()
        await asyncio.gather(*heavy, *polite)

    asyncio.run(work())
    engine.close()
    assert model.questions == [*(f"heavy {n}" for n in range(8)), "polite 0", *(f"heavy {n}" for n in range(8, 24))]


def test_batches_are_small_only_while_several_clients_ask():
    def sizes(*loads):
        model = Echo(hold=True)
        engine = make_engine(model, batch_size=8, contended_batch_size=2)

        async def work():
            engine.start()
            tasks = _asking(engine, model, loads[0], 1)
            await model.begun()
            for client in loads:
                tasks += _asking(engine, model, client, 8)
            await wait_for_queue(engine, len(tasks) - 1)
            model.release()
            await asyncio.gather(*tasks)

        asyncio.run(work())
        engine.close()
        return [len(batch) for batch in model.batches[2:]]

    assert sizes(Client(name="a")) == [8] * 1
    assert sizes(Client(name="a"), Client(name="b")) == [2] * 8


def test_a_client_that_fills_the_queue_leaves_room_for_others():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=1, queue_size=4)

    async def work():
        engine.start()
        first = _asking(engine, model, Client(name="first"), 1)
        await model.begun()
        heavy = _asking(engine, model, Client(name="heavy"), 6)
        await wait_until(lambda: sum(task.done() for task in heavy) == 2)
        polite = _asking(engine, model, Client(name="polite"), 1)
        await wait_for_queue(engine, 5)
        model.release()
        return await asyncio.gather(*first, *heavy, *polite, return_exceptions=True)

    results = asyncio.run(work())
    engine.close()
    assert [isinstance(result, ApiError) for result in results] == [False] * 5 + [True, True, False]
