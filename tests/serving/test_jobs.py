"""Jobs: every question answered once, through cancellation, other tenants and the death of the server."""

from __future__ import annotations

import json
import time

import live
import pytest
from echo_model import Echo, make_engine
from live import png

from medical_vqa.serving import jobs
from medical_vqa.serving.middleware.access import hash_key


def lines(image_id, count):
    return "\n".join(json.dumps({"id": n, "image_id": image_id, "question": f"Question {n}?"}) for n in range(count))


def uploaded(client):
    return client.post("/upload_image", files={"image_file": png()}).json()["image_id"]


def wait(client, job_id, done=None):
    until = time.monotonic() + 20 * live.PATIENCE
    while time.monotonic() < until:
        job = client.get(f"/jobs/{job_id}").json()
        if job["state"] == "complete" or (done is not None and job["done"] >= done):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def output(client, job_id):
    return [json.loads(line) for line in client.get(f"/jobs/{job_id}/output").text.splitlines()]


def test_a_job_answers_every_line_in_order_and_reports_errors_in_their_place(tmp_path):
    with live.serving(make_engine(), live.settings(jobs=tmp_path)) as url, live.client_of(base_url=url) as client:
        image_id = uploaded(client)
        bad = {"id": "bad", "image_id": "f" * 24 + "-" + "x" * 22, "question": "What?"}
        job = client.post("/jobs", content=lines(image_id, 30) + "\n\n" + json.dumps(bad) + "\n")
        assert job.status_code == 202 and job.json()["total"] == 31
        job_id = job.json()["id"]
        assert wait(client, job_id)["done"] == 31
        *answers, last = output(client, job_id)
        assert [(line["id"], line["answer"]["answer"]) for line in answers] == [
            (n, f"100 Question {n}?") for n in range(30)
        ]
        assert (last["id"], last["error"]["code"]) == ("bad", "unknown_image")
        assert client.delete(f"/jobs/{job_id}").status_code == 204
        assert client.get(f"/jobs/{job_id}").status_code == 404
        assert list(tmp_path.iterdir()) == []


def test_a_question_that_the_model_fails_on_is_an_error_in_its_place_and_not_the_end_of_the_job(tmp_path):
    (tmp_path / ("a" * 32)).mkdir()
    (tmp_path / ("a" * 32) / "job.json").write_text("{}")  # of nobody
    with live.serving(make_engine(), live.settings(jobs=tmp_path)) as url, live.client_of(base_url=url) as client:
        image_id = uploaded(client)
        questions = ["Is it?", "crash", "Is it not?"]
        body = "\n".join(json.dumps({"image_id": image_id, "question": question}) for question in questions)
        job_id = client.post("/jobs", content=body).json()["id"]
        wait(client, job_id)
        first, failed, last = output(client, job_id)
        assert (first["answer"]["answer"], last["answer"]["answer"]) == ("100 Is it?", "100 Is it not?")
        assert failed["error"]["code"] == "internal"
        assert [job["id"] for job in client.get("/jobs").json()["jobs"]] == [job_id]


def test_a_job_that_runs_can_be_canceled(tmp_path):
    engine = make_engine(Echo(seconds=0.01))
    with live.serving(engine, live.settings(jobs=tmp_path)) as url, live.client_of(base_url=url) as client:
        image_id = uploaded(client)
        job_id = client.post("/jobs", content=lines(image_id, 200)).json()["id"]
        assert client.delete(f"/jobs/{job_id}").status_code == 204
        assert client.get("/jobs").json() == {"jobs": []}
        assert client.get(f"/jobs/{job_id}/output").status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "expected one JSON object"),
        ('{"image_id": "x"}', "line 1: question: field required"),
        ('{"image_id": "x", "question": "a"}\nno', "line 2"),
        ('{"image_id": "x", "id": "' + "a" * 20_000 + '"}', "line 1: expected at most 16,384 bytes, got 20,"),
        ('{"image_id": "x", "question": " "}', "line 1: question: expected a question of one line"),
        ('{"image_id": "x", "question": "a"}\r{"image_id": "x", "question": "a"}', "line 1: body: invalid json"),
    ],
)
def test_a_body_that_is_no_job_names_the_line(tmp_path, body, message):
    with live.serving(make_engine(), live.settings(jobs=tmp_path)) as url, live.client_of(base_url=url) as client:
        reply = client.post("/jobs", content=body)
        assert reply.status_code == 422 and message in reply.json()["detail"]["message"]


def test_another_tenants_job_is_unknown(tmp_path):
    keys = ",".join(f"{name}:{hash_key(name)}" for name in ("anna", "boris"))
    settings = live.settings(jobs=tmp_path, api_keys=keys)
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        anna, boris = ({"Authorization": f"Bearer {name}"} for name in ("anna", "boris"))
        image_id = client.post("/upload_image", files={"image_file": png()}, headers=anna).json()["image_id"]
        job_id = client.post("/jobs", content=lines(image_id, 3), headers=anna).json()["id"]
        unknown = "0" * 32
        for method, path in (("GET", ""), ("GET", "/output"), ("DELETE", "")):
            reply, other = (client.request(method, f"/jobs/{id_}{path}", headers=boris) for id_ in (job_id, unknown))
            assert (reply.status_code, reply.content) == (other.status_code, other.content) == (404, other.content)
        assert client.get("/jobs", headers=boris).json() == {"jobs": []}
        stolen = client.post("/jobs", content=lines(image_id, 1), headers=boris).json()["id"]
        until = time.monotonic() + live.PATIENCE
        while client.get(f"/jobs/{stolen}", headers=boris).json()["state"] != "complete":
            assert time.monotonic() < until
        assert "unknown_image" in client.get(f"/jobs/{stolen}/output", headers=boris).text


def test_a_server_without_a_folder_takes_no_jobs(echo):
    with live.client_of(base_url=echo) as client:
        assert client.post("/jobs", content="{}").status_code == 404


def test_a_job_resumes_behind_the_last_complete_line(tmp_path):
    settings = live.settings(jobs=tmp_path / "jobs", store=str(tmp_path / "store"))
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        image_id = uploaded(client)
        job_id = client.post("/jobs", content=lines(image_id, 40)).json()["id"]
        wait(client, job_id)
        first = output(client, job_id)
    path = tmp_path / "jobs" / job_id / "output.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b'"id": 17') + 30])  # as a server that was killed leaves it
    model = Echo()
    with live.serving(make_engine(model), settings) as url, live.client_of(base_url=url) as client:
        assert wait(client, job_id)["done"] == 40
        assert [line["id"] for line in output(client, job_id)] == [line["id"] for line in first] == list(range(40))
        assert sorted(model.questions) == sorted(f"Question {n}?" for n in range(17, 40))


def test_a_tenant_has_some_jobs_that_run_and_the_others_follow(tmp_path):
    model = Echo(hold=True)
    with live.serving(make_engine(model), live.settings(jobs=tmp_path)) as url, live.client_of(base_url=url) as client:
        image_id = uploaded(client)
        ids = [client.post("/jobs", content=lines(image_id, 2)).json()["id"] for _ in range(jobs._JOBS_AT_ONCE + 2)]
        states = [job["state"] for job in reversed(client.get("/jobs").json()["jobs"])]
        model.release()
        assert states == ["running"] * jobs._JOBS_AT_ONCE + ["waiting"] * 2
        for job_id in ids:
            assert wait(client, job_id)["done"] == 2


def test_lines_are_counted_where_the_last_count_ended_and_half_lines_not_at_all(tmp_path):
    counts, path = jobs._LineCounts(), tmp_path / "output.jsonl"
    assert counts.lines(path) == 0
    path.write_bytes(b"one\ntwo\nhal")
    assert (counts.lines(path), counts.complete_bytes(path)) == (2, 8)
    path.write_bytes(b"ONE\ntwo\nhalf\n")
    assert (counts.lines(path), counts.complete_bytes(path)) == (3, 13)
    path.write_bytes(b"x\n")  # another file
    assert counts.lines(path) == 1
    path.unlink()
    assert counts.lines(path) == 0
