"""Several models in one server: chosen by name, loaded and replaced while it runs, canaries by fraction."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import threading
import time
from typing import ClassVar

import live
import pytest
import uvicorn
import yaml
from echo_model import Echo, make_engine, wait_until
from live import png

from medical_vqa.errors import BundleError, ConfigError, ModelError
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.image_store.memory import MemoryStore
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.server import uvicorn_config
from medical_vqa.serving.service import service


class Loud(Echo):
    """Answers in capitals."""

    def _words(self, query):
        return super()._words(query).upper()


class Broken(Engine):
    """Fails once its threads run."""

    made: ClassVar[list[Engine]] = []

    def start(self):
        super().start()
        self.made.append(self)
        raise ModelError("the model is broken; choose another")


def load_model(source, metrics):
    if source == "broken":
        return Broken(Loud(), BundleCard(family="echo", name=source))
    if source == "missing":
        raise BundleError("there is no bundle; name another")
    card = BundleCard(family="echo", name=source, decoding={"max_tokens": len(source)})
    model = Loud()
    model.vision.fingerprint = source
    engine = make_engine(model, card)
    engine.metrics = metrics
    return engine


@contextlib.contextmanager
def serving(tmp_path, **options):
    keys = [{"name": "boss", "sha256": hash_key("boss"), "tenant": "t"}]
    keys.append({"name": "asker", "sha256": hash_key("asker"), "tenant": "t", "roles": ["ask", "upload"]})
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    settings = live.settings(keys_file=tmp_path / "keys.yaml", **options)
    app = create_app(make_engine(), settings, load_model=load_model)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app, settings))
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with (
        live.client_of(base_url=url, headers={"Authorization": "Bearer boss"}) as boss,
        live.client_of(base_url=url, headers={"Authorization": "Bearer asker"}) as asker,
    ):
        yield boss, asker
    server.should_exit = True
    thread.join(live.PATIENCE)
    listening.close()


def uploaded(client, gray=100):
    return client.post("/upload_image", files={"image_file": png(gray)}).json()["image_id"]


def ask(client, image_id, question="What?", **options):
    return client.post("/ask_question", json={"image_id": image_id, "question": question, **options})


def test_a_request_chooses_its_model_and_the_answer_names_it(tmp_path):
    with serving(tmp_path, further_models="loud=runs/loud") as (_, asker):
        image_id = uploaded(asker)
        assert ask(asker, image_id).json()["answer"] == "100 What?"
        reply = ask(asker, image_id, model="loud").json()
        assert (reply["answer"], reply["model"]["name"]) == ("100 WHAT?", "runs/loud")
        assert reply["model"]["id"] != ask(asker, image_id).json()["model"]["id"]
        many = asker.post("/ask_questions", json={"image_id": image_id, "questions": ["a"], "model": "loud"}).json()
        assert many["answers"][0]["answer"] == "100 A"
        once = asker.post("/ask", files={"image_file": png()}, data={"question": "What?", "model": "loud"}).json()
        assert once["answer"] == "100 WHAT?"
        assert {model["id"] for model in asker.get("/v1/models").json()["data"]} == {"echo-1", "loud"}
        unknown = ask(asker, image_id, model="other")
        assert (unknown.status_code, unknown.json()["detail"]["code"]) == (404, "not_found")


def test_a_model_is_loaded_replaced_and_removed_while_the_server_runs(tmp_path):
    with serving(tmp_path) as (boss, asker):
        image_id = uploaded(asker)
        assert asker.put("/models/next", json={"model": "first"}).status_code == 403
        first = boss.put("/models/next", json={"model": "first"}).json()
        second = boss.put("/models/next", json={"model": "the second"}).json()
        assert first["id"] != second["id"]
        assert ask(asker, image_id, model="next").json()["model"]["id"] == second["id"]
        assert 'medical_vqa_model_queue{model="next"} 0.0' in boss.get("/metrics").text
        assert boss.put("/models/next", json={"model": "missing"}).status_code == 422
        assert ask(asker, image_id, model="next").json()["model"]["id"] == second["id"]
        assert boss.delete("/models/next").status_code == 204
        assert ask(asker, image_id, model="next").status_code == 404
        assert boss.delete("/models/echo-1").status_code == 422


def test_a_canary_answers_its_share_of_the_images_and_becomes_the_default(tmp_path):
    with serving(tmp_path, further_models="next=next@0.3") as (boss, asker):
        images = [uploaded(asker, gray) for gray in range(60)]
        models = [ask(asker, image).json()["model"]["name"] for image in images]
        assert models == [ask(asker, image, "Again?").json()["model"]["name"] for image in images]
        assert 6 <= models.count("next") <= 32
        fractions = {model["name"]: model["fraction"] for model in asker.get("/models").json()["models"]}
        assert fractions == {"echo-1": 0.7, "next": 0.3}
        assert boss.post("/models/next/fraction", json={"fraction": 1}).json()["is_default"]
        assert {ask(asker, image).json()["model"]["name"] for image in images} == {"next"}
        assert ask(asker, images[0], model="echo-1").json()["model"]["name"] == "echo-1"


def test_a_deleted_image_is_unknown_to_every_model(tmp_path):
    with serving(tmp_path, further_models="loud=loud", store=str(tmp_path / "store")) as (_, asker):
        image_id = uploaded(asker)
        assert ask(asker, image_id, model="loud").status_code == 200
        assert asker.delete(f"/images/{image_id}").status_code == 204
        assert [ask(asker, image_id, model=name).status_code for name in ("loud", "echo-1")] == [404, 404]


def test_without_keys_nobody_changes_the_models():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        assert client.put("/models/next", json={"model": "first"}).status_code == 403
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["echo-1"]


@pytest.mark.parametrize("value", ["next", "a=b@1.5", "a=b@0.6,c=d@0.5", "/x=y"])
def test_further_models_that_make_no_sense_stop_the_start(value):
    with pytest.raises(ConfigError, match="FURTHER_MODELS"):
        live.settings(further_models=value)


def test_a_conversation_asks_the_model_that_a_question_names(tmp_path):
    with serving(tmp_path) as (boss, asker):
        assert boss.put("/models/loud", json={"model": "loud"}).is_success
        conversation = f"/conversations/{asker.post('/conversations', json={}).json()['id']}"
        files = {"image_file": ("x.png", png())}
        image = asker.post(f"{conversation}/images", files=files).json()["image"]["image_id"]
        for key, model in (("question-1", None), ("question-2", "loud")):
            question = {"image_id": image, "key": key, "question": "Which organ?", "model": model}
            assert asker.post(f"{conversation}/questions", json=question).status_code == 202
        unknown = {"image_id": image, "key": "question-3", "question": "Which organ?", "model": "unknown"}
        assert asker.post(f"{conversation}/questions", json=unknown).status_code == 404
        turns, version = [], -1
        while not turns or any(turn["status"] == "pending" for turn in turns):
            body = asker.get(conversation, params={"after": version}).json()
            turns, version = body["cases"][0]["turns"], body["version"]
        assert [turn["answer"]["answer"].endswith("WHICH ORGAN?") for turn in turns] == [False, True]
        assert [turn["model"] for turn in turns] == [None, "loud"]


def threads_of(engine):
    return [thread for thread in engine.scheduler._threads if thread.is_alive()]


async def started(app):
    async with app.router.lifespan_context(app):
        pass


def test_a_server_whose_further_model_cannot_start_leaves_neither_thread_nor_process():
    before = set(multiprocessing.active_children())
    engine, settings = make_engine(), live.settings(decoder_processes=1, further_models="next=broken")
    with pytest.raises(ConfigError, match="the model is broken"):
        asyncio.run(started(create_app(engine, settings, load_model=load_model)))
    assert threads_of(engine) == [] and threads_of(Broken.made.pop()) == []
    assert set(multiprocessing.active_children()) <= before


def test_a_server_that_never_starts_has_no_process():
    before = set(multiprocessing.active_children())
    threads = threading.active_count()
    create_app(make_engine(), live.settings(decoder_processes=2))
    assert threading.active_count() == threads
    assert set(multiprocessing.active_children()) <= before


def test_a_model_that_cannot_be_closed_does_not_keep_the_others_open(monkeypatch):
    engine = make_engine()
    app = create_app(engine, live.settings(decoder_processes=1, further_models="next=loud"), load_model=load_model)

    async def stop():
        async with app.router.lifespan_context(app):
            other = app.state.models.choose("next").engine
            monkeypatch.setattr(other, "close", lambda: 1 // 0)
        return other

    before = set(multiprocessing.active_children())
    with pytest.raises(ZeroDivisionError):
        asyncio.run(stop())
    assert threads_of(engine) == []
    assert set(multiprocessing.active_children()) <= before


def test_a_model_that_was_just_replaced_is_closed_with_the_server():
    app = create_app(make_engine(), live.settings(), load_model=load_model)

    async def stop():
        async with app.router.lifespan_context(app):
            models = app.state.models
            old = (await models.load("next", "first")).service.engine
            await models.load("next", "second")
        return old

    assert threads_of(asyncio.run(stop())) == []


class BlockingStore(MemoryStore):
    """Counts how often what has expired is removed from it."""

    blocking = True
    sweeps = 0

    def sweep(self):
        self.sweeps += 1
        return super().sweep()


def test_what_has_expired_is_removed_after_the_first_model_was_replaced(monkeypatch):
    monkeypatch.setattr(service, "_MAX_SWEEP_INTERVAL", 0.01)
    store = BlockingStore(ttl=None, max_bytes=1 << 20)
    app = create_app(make_engine(deadline=0.0), live.settings(), store, load_model=load_model)

    async def sweeps():
        async with app.router.lifespan_context(app):
            models = app.state.models
            await models.load("echo-1", "next")
            await wait_until(lambda: not models._closing)
            before = store.sweeps
            await wait_until(lambda: store.sweeps > before + 1)

    asyncio.run(sweeps())
