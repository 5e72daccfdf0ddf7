"""A small backend with the same wire types whose state the tests set: starting, overloaded, stopped, abstaining."""

from __future__ import annotations

import io
import json
import threading
import time
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image
from ports import free_port

from medical_vqa.schema.evidence import Evidence, MultiPolygon
from medical_vqa.serving.schema.answers import Alternative, Answer, AttentionMap, ModelRef, Timings
from medical_vqa.serving.schema.errors import ErrorCode, Problem, ProblemDetail
from medical_vqa.serving.schema.examples import ExampleImage, Examples
from medical_vqa.serving.schema.health import Health
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.schema.models import Limits, ModelInfo
from medical_vqa.serving.schema.questions import Suggestions

LIMITS = Limits(
    max_upload_bytes=32 * 2**20,
    max_pixels=64_000_000,
    max_question_characters=1000,
    max_questions=32,
    formats=["JPEG", "PNG", "TIFF", "DICOM"],
    image_ttl_seconds=3600.0,
    deadline_seconds=7.0,
)
REASON = "This is not a question about a medical image that I have learned to answer."
FRAMES = 12
_SQUARE = ((60.0, 20.0), (80.0, 20.0), (80.0, 50.0), (60.0, 50.0), (60.0, 20.0))
EVIDENCE = Evidence(
    name="Left Lung",
    box=(60, 20, 80, 50),
    polygon=MultiPolygon(coordinates=((_SQUARE,),)),
    area=600,
    side="patient",
    position="right",
    learned_from="mask",
    score=0.9,
)


def png(side: int = 96, shade: int = 90, *, width: int | None = None) -> bytes:
    """A gray picture with a bright square in its upper left."""
    pixels = np.full((side, width or side), shade, np.uint8)
    pixels[: side // 3, : side // 3] = 230
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class FakeBackend:
    """Answers with the width of the picture, so that a test sees which picture the question was about."""

    def __init__(self, name: str = "fake-model") -> None:
        self.name = name
        self.images: dict[str, tuple[bytes, tuple[int, int]]] = {}
        """Image id → PNG and size."""
        self.starting = False
        """Whether every route responds with 503."""
        self.overloaded = 0
        """How many of the next requests get 429."""
        self.requests: list[str] = []
        """Method and path of every request."""
        self._server: ThreadingHTTPServer | None = None
        self._port = free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the former port after a stop."""
        handler = type("Handler", (_Handler,), {"backend": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening; uploads are lost, as with a backend that keeps them in memory."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.images.clear()

    def wait_until_deleted(self, image_id: str | None = None) -> None:
        """Wait for a deletion in the background: of one image, or of all."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if not self.images if image_id is None else image_id not in self.images:
                return
            time.sleep(0.01)
        raise TimeoutError(f"still there: {list(self.images)}")

    # --- routes ---

    def upload(self, data: bytes, form: dict[str, str]) -> UploadedImage:
        dicom = data[128:132] == b"DICM"
        frame, center = int(form.get("frame", 0)), form.get("window_center", "40")
        try:
            picture = png(64 + frame, int(float(center)) % 200) if dicom else data
            with Image.open(io.BytesIO(picture)) as image:
                size = image.size
                file_format = str(image.format)
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "PNG")
        except OSError as error:
            raise _Problem(400, "not_an_image", "expected a JPEG, PNG, TIFF or DICOM file") from error
        image_id = f"{len(self.images):024x}-{'a' * 22}"
        self.images[image_id] = (buffer.getvalue(), size)
        return UploadedImage(
            image_id=image_id,
            width=size[0],
            height=size[1],
            format="DICOM" if dicom else file_format,
            frames=FRAMES if dicom else 1,
            header_fields={"Modality": "CT", "WindowCenter": center, "WindowWidth": form.get("window_width", "400")}
            if dicom
            else {},
            removed_metadata=["DICOM header"] if dicom else [],
            expires_in_seconds=3600.0,
        )

    def answer(self, content: bytes) -> Answer:
        body = json.loads(content)
        _, (width, _height) = self.image(body["image_id"])
        abstains = "weather" in body["question"]
        locates = "Where" in body["question"]
        return Answer(
            image_id=body["image_id"],
            question=body["question"],
            answer=f"{width} pixels",
            confidence=0.08 if abstains else 0.91,
            alternatives=[
                Alternative(answer="MRI", confidence=0.06),
                Alternative(answer="<b>X-Ray</b>", confidence=0.004),
            ],
            abstained=abstains,
            reason=REASON if abstains else None,
            suggestions=["Which organ is shown here?"] if abstains else [],
            source="picture" if locates else None,
            side="patient" if locates else None,
            evidence=[EVIDENCE] if locates else [],
            attention_map=AttentionMap(rows=2, columns=2, values=[[0.7, 0.1], [0.1, 0.1]])
            if body["attention_map"]
            else None,
            model=ModelRef(name=self.name, family="fake", id="0" * 12),
            timings=Timings(queue_ms=0.1, model_ms=5.0, total_ms=6.0, batch_size=1),
        )

    def image(self, image_id: str) -> tuple[bytes, tuple[int, int]]:
        if image_id not in self.images:
            raise _Problem(404, "unknown_image", "no image has this id, or no longer; upload it again")
        return self.images[image_id]

    def model(self) -> ModelInfo:
        empty: dict[str, Any] = {}
        return ModelInfo(
            name=self.name, family="fake", id="0" * 12, data=empty, checkpoint_selection=empty, facts=empty,
            decoding=empty, calibration=empty, license="none", intended_use="tests",
            created="2026-01-01T00:00:00Z", version="0",
            has_attention_map=True, limits=LIMITS,
        )  # fmt: skip

    def examples(self) -> Examples:
        example = ExampleImage(
            id="one", image_path="/examples/one/image", caption="CT, abdomen", questions=["Which organ is this?"],
            answers=["Liver"],
        )  # fmt: skip
        return Examples(examples=[example], questions=[], source="made for the tests")


class _Problem(Exception):
    def __init__(self, status: int, code: ErrorCode, message: str) -> None:
        self.status = status
        self.body = Problem(detail=ProblemDetail(code=code, message=message))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnects is not reported."""


class _Handler(BaseHTTPRequestHandler):
    backend: FakeBackend

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def do_DELETE(self) -> None:
        self._respond("DELETE")

    def _respond(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        backend = self.backend
        backend.requests.append(f"{method} {self.path}")
        try:
            if backend.starting:
                raise _Problem(503, "not_ready", "starting")
            if backend.overloaded > 0:
                backend.overloaded -= 1
                raise _Problem(429, "overloaded", "ask again later")
            reply = self._route(method, body)
        except _Problem as problem:
            self._send(problem.status, problem.body.model_dump_json().encode(), "application/json")
            return
        if reply is None:
            self._send(204, b"", "text/plain")
        elif isinstance(reply, bytes):
            self._send(200, reply, "image/png")
        else:
            self._send(200, reply.model_dump_json().encode(), "application/json")

    def _route(self, method: str, body: bytes) -> Any:
        backend, parts = self.backend, self.path.strip("/").split("/")
        if method == "POST":
            upload = parts[0] == "upload_image"
            return backend.upload(*_parts(self.headers["content-type"], body)) if upload else backend.answer(body)
        if parts[0] == "images":
            return self._image(method, parts[1], parts[2:])
        routes = {
            "readyz": lambda: Health(status="ready"),
            "model": backend.model,
            "examples": lambda: png(80) if parts[1:] else backend.examples(),
        }
        return routes[parts[0]]()

    def _image(self, method: str, image_id: str, rest: list[str]) -> Any:
        picture, _ = self.backend.image(image_id)
        if method == "DELETE":
            del self.backend.images[image_id]
            return None
        if rest == ["picture"]:
            return picture
        if "language=zh" in rest[-1]:
            return Suggestions(questions=["图中是哪个器官？", "肝脏健康吗？"])
        return Suggestions(questions=["What is shown?", "Is the liver healthy?"])

    def _send(self, status: int, content: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _parts(content_type: str, body: bytes) -> tuple[bytes, dict[str, str]]:
    """File and fields of a multipart body."""
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    form: dict[str, str] = {}
    data = b""
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if name == "image_file":
            data = content
        else:
            form[name] = content.decode()
    return data, form
