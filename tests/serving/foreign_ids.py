"""Every route that names something of a tenant, with the request that another tenant would send to reach it.

`operations` names a route of the API's description for each, so that a test notices a route without one. The two
requests of an operation differ in the ids alone: of what another tenant owns, and of what nobody does.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from live import png

QUESTION = "Is it a CT?"
SOURCE = {
    "study_uid": "1.2.3",
    "series_uid": "1.2.3.4",
    "instances": [{"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "sop_instance_uid": "1.2.3.4.5"}],
}
"""The UIDs of a DICOM report that the sender of a request makes up."""
KEY = "a-key-of-a-question"
Reply = tuple[int, str, dict[str, str]]
"""Status, body, headers: without what names the request itself."""


@dataclass(frozen=True)
class Ids:
    """What a tenant owns."""

    image: str
    series: str
    job: str
    conversation: str
    case: str
    """An image in the conversation."""
    key: str
    """Of a question in it."""

    @classmethod
    def unknown(cls) -> Ids:
        """Ids of the right form that nobody owns."""
        image, series, conversation, case = (f"{secrets.token_hex(12)}-{secrets.token_urlsafe(16)}" for _ in range(4))
        return cls(image, series, secrets.token_hex(16), conversation, case, KEY)


def create(http: Any, series_file: bytes) -> Ids:
    """One of everything, owned by the tenant of a client."""

    def new(path: str, name: str = "", **request: Any) -> Any:
        reply = http.post(path, **request)
        assert reply.status_code in (200, 201, 202), reply.text
        return reply.json()[name] if name else reply.json()

    image = new("/upload_image", "image_id", files={"image_file": png(90)})
    series = new("/series", files={"files": series_file})["series"][0]["image_id"]
    line = json.dumps({"image_id": image, "question": QUESTION})
    job = new("/jobs", "id", content=line)
    conversation = new("/conversations", "id")
    case = new(f"/conversations/{conversation}/images", files={"image_file": png(91)})["image"]["image_id"]
    new(f"/conversations/{conversation}/questions", json={"image_id": case, "key": KEY, "question": QUESTION})
    http.post("/ask_question", json={"image_id": image, "question": QUESTION})  # so that its answer is in the cache
    return Ids(image, series, job, conversation, case, KEY)


def operations(own: Ids) -> dict[str, list[Callable[[Any, Ids], Any]]]:
    """The requests by route; `own` is what their sender owns, for routes that name two things."""

    def answers_of_job(http: Any, ids: Ids) -> Any:
        job = http.post("/jobs", content=json.dumps({"id": "1", "image_id": ids.image, "question": QUESTION})).json()
        try:
            while http.get(f"/jobs/{job['id']}").json()["state"] != "complete":
                time.sleep(0.01)
            return http.get(f"/jobs/{job['id']}/output")
        finally:
            http.delete(f"/jobs/{job['id']}")

    def about(image: str, **more: Any) -> dict[str, Any]:
        return {"image_id": image, "question": QUESTION, **more}

    talk = "/conversations/{conversation_id}"
    return {
        "POST /ask_question": [
            lambda http, ids: http.post("/ask_question", json=about(ids.image)),
            lambda http, ids: http.post("/ask_question", json=about(ids.series, frame=1, window="lung")),
            lambda http, ids: http.post("/ask_question", json=about(own.image, other_image_ids=[ids.image])),
            lambda http, ids: http.post("/ask_question", data=about(ids.image)),
        ],
        "POST /ask_question/stream": [
            lambda http, ids: http.post("/ask_question/stream", json=about(ids.image)),
        ],
        "POST /ask_questions": [
            lambda http, ids: http.post("/ask_questions", json={"image_id": ids.image, "questions": ["a", "b"]}),
        ],
        "POST /jobs": [answers_of_job],
        "DELETE /images/{image_id}": [
            lambda http, ids: http.delete(f"/images/{ids.image}"),
            lambda http, ids: http.delete(f"/images/{ids.series}"),
        ],
        "GET /images/{image_id}": [
            lambda http, ids: http.get(f"/images/{ids.image}"),
            lambda http, ids: http.get(f"/images/{ids.series}"),
        ],
        "GET /images/{image_id}/picture": [lambda http, ids: http.get(f"/images/{ids.image}/picture")],
        "GET /images/{image_id}/questions": [lambda http, ids: http.get(f"/images/{ids.image}/questions")],
        "GET /images/{image_id}/view": [
            lambda http, ids: http.get(f"/images/{ids.image}/view"),
            lambda http, ids: http.get(f"/images/{ids.series}/view?frame=1&plane=coronal&window=lung"),
        ],
        "POST /images/{image_id}/dicom_report": [
            lambda http, ids: http.post(
                f"/images/{ids.image}/dicom_report", json={"questions": [QUESTION], "source": SOURCE}
            ),
            lambda http, ids: http.post(f"/images/{ids.image}/dicom_report", json={"questions": [QUESTION]}),
        ],
        "GET /images/{image_id}/values": [lambda http, ids: http.get(f"/images/{ids.series}/values?frame=0")],
        "GET /jobs/{job_id}": [lambda http, ids: http.get(f"/jobs/{ids.job}")],
        "GET /jobs/{job_id}/output": [lambda http, ids: http.get(f"/jobs/{ids.job}/output")],
        "DELETE /jobs/{job_id}": [lambda http, ids: http.delete(f"/jobs/{ids.job}")],
        f"GET {talk}": [lambda http, ids: http.get(f"/conversations/{ids.conversation}")],
        f"POST {talk}/images": [
            lambda http, ids: http.post(f"/conversations/{ids.conversation}/images", files={"image_file": png()}),
        ],
        f"POST {talk}/stored": [
            lambda http, ids: http.post(f"/conversations/{ids.conversation}/stored", json={"image_id": own.image}),
            lambda http, ids: http.post(f"/conversations/{own.conversation}/stored", json={"image_id": ids.image}),
            lambda http, ids: http.post(f"/conversations/{own.conversation}/stored", json={"image_id": ids.series}),
        ],
        f"POST {talk}/questions": [
            lambda http, ids: http.post(
                f"/conversations/{ids.conversation}/questions", json=about(ids.case, key="another key")
            ),
            lambda http, ids: http.post(
                f"/conversations/{own.conversation}/questions", json=about(ids.case, key="another key")
            ),
            lambda http, ids: http.post(
                f"/conversations/{own.conversation}/questions",
                json=about(own.case, key="a further key", other_image_ids=[ids.image]),
            ),
        ],
        f"DELETE {talk}/images/{{image_id}}/questions/{{key}}": [
            lambda http, ids: http.delete(f"/conversations/{ids.conversation}/images/{ids.case}/questions/{ids.key}"),
            lambda http, ids: http.delete(f"/conversations/{own.conversation}/images/{ids.case}/questions/{ids.key}"),
        ],
        f"POST {talk}/images/{{image_id}}/dicom_report": [
            lambda http, ids: http.post(
                f"/conversations/{ids.conversation}/images/{ids.case}/dicom_report", json={"source": SOURCE}
            ),
            lambda http, ids: http.post(
                f"/conversations/{own.conversation}/images/{ids.case}/dicom_report", json={"source": SOURCE}
            ),
        ],
        f"POST {talk}/ratings": [
            lambda http, ids: http.post(
                f"/conversations/{ids.conversation}/ratings",
                json={"image_id": ids.case, "key": ids.key, "correct": True, "keep_picture": True},
            ),
            lambda http, ids: http.post(
                f"/conversations/{own.conversation}/ratings",
                json={"image_id": ids.case, "key": ids.key, "correct": True},
            ),
        ],
        f"PUT {talk}/draft": [
            lambda http, ids: http.put(
                f"/conversations/{ids.conversation}/draft", json={"image_id": ids.case, "draft": "x"}
            ),
            lambda http, ids: http.put(
                f"/conversations/{own.conversation}/draft", json={"image_id": ids.case, "draft": "x"}
            ),
        ],
        f"DELETE {talk}/images/{{image_id}}": [
            lambda http, ids: http.delete(f"/conversations/{ids.conversation}/images/{ids.case}"),
            lambda http, ids: http.delete(f"/conversations/{own.conversation}/images/{ids.image}"),
        ],
    }


def routes_with_ids(description: dict[str, Any]) -> set[str]:
    """The routes of an OpenAPI description whose path or body names an image, a job or a conversation."""
    found = set()
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            body = json.dumps(_with_schemas(route.get("requestBody", {}), description))
            if "_id}" in path.replace("{example_id}", "") or "image_id" in body:
                found.add(f"{method.upper()} {path}")
    return found | {"POST /jobs"}  # whose lines the description calls a text


def _with_schemas(part: Any, description: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        reference = part.get("$ref")
        if reference is not None:
            return description["components"]["schemas"][reference.rpartition("/")[2]]
        return {name: _with_schemas(value, description) for name, value in part.items()}
    return [_with_schemas(value, description) for value in part] if isinstance(part, list) else part


def seen_by_client(reply: Any) -> Reply:
    """What a client can compare of a reply: all but the id of the request and the date."""
    headers = {name: value for name, value in reply.headers.items() if name not in ("x-request-id", "date")}
    return reply.status_code, reply.text, headers


def reaches_nothing(reply: Any) -> bool:
    """Whether a request was refused as one for an unknown id, or each line of its job's output."""
    if reply.status_code == 404:
        return True
    lines = [json.loads(line) for line in reply.text.splitlines()] if "ndjson" in reply.headers["content-type"] else []
    return bool(lines) and all(line.get("error", {}).get("code") == "unknown_image" for line in lines)


def everything_is_there(http: Any, owned: Ids) -> bool:
    """Whether its owner finds all of it as it was."""
    paths = [f"/images/{owned.image}", f"/images/{owned.series}", f"/jobs/{owned.job}/output"]
    conversation = http.get(f"/conversations/{owned.conversation}").json()
    (case,) = conversation["cases"]
    (turn,) = case["turns"]
    unchanged = (case["image"]["image_id"], case["draft"], turn["key"]) == (owned.case, "", owned.key)
    return unchanged and all(http.get(path).status_code == 200 for path in paths)
