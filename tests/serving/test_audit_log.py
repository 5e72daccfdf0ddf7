"""The audit log: complete, chained, and without content unless a setting says so."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import live
import pytest
from click.testing import CliRunner
from echo_model import make_engine
from live import png

from medical_vqa import cli
from medical_vqa.errors import DataError
from medical_vqa.serving import audit_log
from medical_vqa.serving.audit_log import AuditLog, verify
from medical_vqa.serving.image_store.base import store_unavailable
from medical_vqa.serving.image_store.memory import MemoryStore
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.service import checks


def records(folder):
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_uploads_answers_and_deletions_are_recorded_with_who_and_under_which_request(tmp_path):
    options = {"audit_log": tmp_path, "api_keys": f"ward:{hash_key('ward')}"}
    headers = {"Authorization": "Bearer ward", "X-Request-ID": "request-1"}
    with live.serving(make_engine(), live.settings(**options)) as url:
        upload = live.request("POST", f"{url}/upload_image", files={"image_file": png()}, headers=headers)
        image_id = upload.json()["image_id"]
        body = {"image_id": image_id, "question": "A secret question?"}
        live.request("POST", f"{url}/ask_question", json=body, headers=headers)
        live.request("DELETE", f"{url}/images/{image_id}", headers=headers)
        live.request("DELETE", f"{url}/images/{image_id}", headers=headers)  # unknown by now
    lines = records(tmp_path)
    assert [line["event"] for line in lines] == ["upload", "answer", "delete"]
    assert {(line["client"], line["tenant"], line["request_id"]) for line in lines} == {("ward", "ward", "request-1")}
    assert len({line["image"] for line in lines}) == 1
    assert (lines[1]["answer"], lines[1]["abstained"], lines[1]["model"]) == ("100 A secret question?", False, "echo-1")
    assert image_id not in json.dumps(lines) and lines[1]["question"] != "A secret question?"
    assert verify(tmp_path).count == 3


def test_questions_are_written_in_words_where_a_setting_says_so(tmp_path):
    assert AuditLog(tmp_path, with_text=True).question("Is it?") == "Is it?"
    assert AuditLog(tmp_path).question("Is it?") == AuditLog(tmp_path).digest("Is it?")
    assert AuditLog(tmp_path / "other").digest("Is it?") != AuditLog(tmp_path).digest("Is it?")


def test_a_restart_continues_the_chain_and_files_follow_each_other(tmp_path):
    for start in range(3):
        log = AuditLog(tmp_path, max_file_bytes=600)
        for n in range(4):
            log.write("answer", answer=f"{start} {n}")
    assert [line["n"] for line in records(tmp_path)] == list(range(1, 13))
    assert len(list(tmp_path.glob("*.jsonl"))) > 2
    assert verify(tmp_path).hash == records(tmp_path)[-1]["hash"]


def test_half_a_line_of_a_crash_is_removed(tmp_path):
    AuditLog(tmp_path).write("answer")
    with (tmp_path / "audit-000001.jsonl").open("a") as file:
        file.write('{"n": 2, "ti')
    AuditLog(tmp_path).write("answer")
    assert verify(tmp_path).count == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[1].replace("yes", "no"), *lines[2:]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], "{}", *lines[1:]],
        lambda lines: [lines[0], "no JSON", *lines[1:]],
        lambda lines: lines[1:],
    ],
)
def test_a_line_that_is_changed_removed_moved_or_inserted_is_named(tmp_path, change):
    log = AuditLog(tmp_path)
    for _ in range(4):
        log.write("answer", answer="yes")
    path = tmp_path / "audit-000001.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=r"line [12]: this line is not the one"):
        verify(tmp_path)
    output = CliRunner().invoke(cli.cli, ["verify-audit-log", str(tmp_path)])
    assert output.exit_code != 0


def test_the_command_prints_number_and_hash_of_the_newest_line(tmp_path):
    log = AuditLog(tmp_path)
    log.write("answer")
    log.write("answer")
    output = CliRunner().invoke(cli.cli, ["verify-audit-log", str(tmp_path)]).output
    assert output.split()[0] == "2" and records(tmp_path)[-1]["hash"] in output


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A folder on a disk that takes half of the next line and then no more, until it is freed."""
    free = [False]
    original = Path.open

    def limited(path, mode="r", *arguments, **options):
        file = original(path, mode, *arguments, **options)
        if mode == "ab" and path.parent == tmp_path and not free[0]:
            write = file.write

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, content):
                    write(content[: len(content) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")

            return Full()
        return file

    monkeypatch.setattr(Path, "open", limited)
    return free


def test_on_a_full_disk_nothing_is_answered_and_the_chain_stays_whole(tmp_path, small_disk):
    small_disk[0] = True
    with live.serving(make_engine(), live.settings(audit_log=tmp_path)) as url, live.client_of(base_url=url) as client:
        image_id = client.post("/upload_image", files={"image_file": png()}).json()["image_id"]
        small_disk[0] = False
        refused = [
            client.post("/ask_question", json={"image_id": image_id, "question": "Is it?"}),
            client.post("/upload_image", files={"image_file": png(50)}),
            client.post("/series", files={"files": png(50)}),
        ]
        assert [reply.status_code for reply in refused] == [503, 503, 503]
        assert all("audit log" in reply.json()["detail"]["message"] for reply in refused)
        small_disk[0] = True
        assert client.post("/ask_question", json={"image_id": image_id, "question": "Is it?"}).status_code == 200
    AuditLog(tmp_path).write("answer")
    assert [line["event"] for line in records(tmp_path)] == ["upload", "answer", "answer"]
    assert verify(tmp_path).count == 3


def test_of_the_images_of_one_request_all_are_in_the_log_or_none(tmp_path, monkeypatch):
    pictures = [("files", png(gray)) for gray in (10, 60)]
    append = audit_log._append
    full = False

    def limited(path, line):
        """A disk with room for one line."""
        if full and sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) + len(line) > 500:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, line)

    monkeypatch.setattr(audit_log, "_append", limited)
    with live.serving(make_engine(), live.settings(audit_log=tmp_path)) as url, live.client_of(base_url=url) as client:
        full = True
        assert client.post("/series", files=pictures).status_code == 503
        assert records(tmp_path) == []
        full = False
        stored = client.post("/series", files=pictures).json()["series"]
    assert len(records(tmp_path)) == len(stored) == verify(tmp_path).count == 2
    assert len({line["image"] for line in records(tmp_path)}) == 2


def test_a_server_is_not_ready_while_its_audit_log_cannot_be_written(tmp_path, small_disk):
    small_disk[0] = True
    with live.serving(make_engine(), live.settings(audit_log=tmp_path)) as url, live.client_of(base_url=url) as client:
        assert client.get("/readyz").status_code == 200
        small_disk[0] = False
        assert client.post("/upload_image", files={"image_file": png()}).status_code == 503
        for _ in range(2):
            reply = client.get("/readyz")
            assert (reply.status_code, reply.json()["detail"]["code"]) == (503, "not_ready")
            assert "audit log" in reply.json()["detail"]["message"]
        assert client.get("/healthz").status_code == 200
        small_disk[0] = True
        assert client.get("/readyz").status_code == 200
        assert client.post("/upload_image", files={"image_file": png()}).status_code == 200
    assert verify(tmp_path).count == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "lock") == ["audit-000001.jsonl", "salt"]


def test_readiness_notices_by_itself_that_the_audit_log_cannot_be_written(tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(checks, "INTERVAL", 0.0)
    small_disk[0] = True
    with live.serving(make_engine(), live.settings(audit_log=tmp_path)) as url:
        statuses = []
        for small_disk[0] in (True, False, True):
            statuses.append(live.request("GET", f"{url}/readyz").status_code)
    assert statuses == [200, 503, 200]


def test_a_newest_file_that_cannot_be_opened_is_noticed(tmp_path):
    log = AuditLog(tmp_path)
    log.write("answer")
    log.check()
    (file,) = tmp_path.glob("*.jsonl")
    file.unlink()
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        log.check()


def test_what_cannot_be_recorded_is_not_deleted(tmp_path, small_disk):
    small_disk[0] = True
    with live.serving(make_engine(), live.settings(audit_log=tmp_path)) as url, live.client_of(base_url=url) as client:
        path = f"/images/{client.post('/upload_image', files={'image_file': png()}).json()['image_id']}"
        conversation = f"/conversations/{client.post('/conversations').json()['id']}"
        added = client.post(f"{conversation}/images", files={"image_file": png(50)}).json()["image"]["image_id"]
        small_disk[0] = False
        for one in (path, f"{conversation}/images/{added}"):
            assert client.delete(one).status_code == 503
        assert client.get(path).status_code == client.get(f"/images/{added}").status_code == 200
        assert [case["image"]["image_id"] for case in client.get(conversation).json()["cases"]] == [added]
        small_disk[0] = True
        for one in (path, f"{conversation}/images/{added}"):
            assert client.delete(one).status_code == 204
        assert client.get(path).status_code == client.get(f"/images/{added}").status_code == 404
    assert [line["event"] for line in records(tmp_path)] == ["upload", "upload", "delete", "delete"]


def test_a_deletion_that_fails_after_its_line_gets_a_line_that_says_so(tmp_path):
    class Stuck(MemoryStore):
        def delete(self, image_id):
            raise store_unavailable()

    store = Stuck(ttl=None, max_bytes=1 << 20)
    with live.serving(make_engine(), live.settings(audit_log=tmp_path), store) as url:
        image_id = live.request("POST", f"{url}/upload_image", files={"image_file": png()}).json()["image_id"]
        assert live.request("DELETE", f"{url}/images/{image_id}").status_code == 503
    lines = records(tmp_path)
    assert [line["event"] for line in lines] == ["upload", "delete", "delete_failed"]
    assert lines[2]["reason"] == "not_ready"
    assert lines[1]["image"] == lines[2]["image"]


def test_a_salt_that_a_full_disk_has_left_empty_is_written_again(tmp_path):
    (tmp_path / "salt").touch()
    salted = AuditLog(tmp_path).digest("a")
    assert len((tmp_path / "salt").read_text()) == 64
    assert salted == AuditLog(tmp_path).digest("a") != hashlib.sha256(b"/a").hexdigest()[:32]


def test_two_servers_of_one_folder_continue_each_others_chain(tmp_path):
    """As while one replaces the other."""
    old, new = AuditLog(tmp_path, max_file_bytes=900), AuditLog(tmp_path, max_file_bytes=900)
    for log in (old, new, new, old, new, old, old, new):
        log.write("answer")
    assert verify(tmp_path).count == 8


def test_lines_that_are_removed_while_a_server_runs_break_the_chain(tmp_path):
    log = AuditLog(tmp_path)
    for _ in range(3):
        log.write("answer")
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    log.write("answer")
    with pytest.raises(DataError, match="line 3"):
        verify(tmp_path)
