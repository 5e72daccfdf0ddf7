"""A fake endpoint on this machine: what a test tells it to answer, in the shapes that engines differ in."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

from medical_vqa.models.base import Query

ANSWER = {
    "choices": [{"message": {"content": " Yes\n"}, "logprobs": {"content": [{"token": "Yes", "logprob": -0.1}]}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}


class FakeEndpoint:
    """Answers `reply`; `failures` are the statuses of the first requests, and `limit` the number it answers at all."""

    def __init__(self) -> None:
        self.failures: list[int] = []
        self.error: Any = {"error": "no such luck"}
        self.location = ""
        self.limit = 10**9
        self.path = "/v1"
        self.models: list[str] | None = ["m"]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        self.reply: Any = json.loads(json.dumps(ANSWER))
        self.answer: Callable[[dict[str, Any]], tuple[int, Any]] | None = None
        self.events: list[str] = []
        self.endless = threading.Event()  # a stream goes on until the asker leaves
        self.left = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if fake.models is None or self.path != f"{fake.path}/models":
                    self.send(404, {"detail": "Not Found"})
                    return
                self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in fake.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path != f"{fake.path}/chat/completions":
                    self.send(404, {"detail": "Not Found"})
                    return
                with fake.lock:
                    fake.running += 1
                    fake.most = max(fake.most, fake.running)
                    fake.asked.append(body)
                    fake.headers.append(dict(self.headers))
                    status = fake.failures.pop(0) if fake.failures else 200 if len(fake.asked) <= fake.limit else 503
                threading.Event().wait(0.005)
                reply = fake.reply if status == 200 else fake.error
                if status == 200 and fake.answer is not None:
                    status, reply = fake.answer(body)
                with fake.lock:
                    fake.running -= 1
                if status == 200 and body.get("stream") and fake.events:
                    self.stream()
                else:
                    self.send(status, reply)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                try:
                    for event in fake.events:
                        self.wfile.write(f"data: {event}\n\n".encode())
                        self.wfile.flush()
                    while fake.endless.is_set():  # the engine notices that the asker has left when it writes
                        self.wfile.write(b": still here\n\n")
                        self.wfile.flush()
                except OSError:
                    fake.left.set()

            def send(self, status: int, reply: Any) -> None:
                content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("retry-after-ms", "1")
                if fake.location:
                    self.send_header("location", fake.location)
                self.send_header("content-type", "text/html" if isinstance(reply, str) else "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{self.path}"

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def say(self, text: str | None, *, finish_reason: str = "stop", tokens: Any = None) -> None:
        """Answer with a text, and with token log-probabilities where they are passed."""
        choice: dict[str, Any] = {"message": {"content": text}, "finish_reason": finish_reason}
        if tokens is not None:
            choice["logprobs"] = {"content": tokens}
        self.reply = {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}

    def count_pictures(self) -> Self:
        """A picture adds tokens from now on, so that the probe finds that the model sees."""

        def answer(body: dict[str, Any]) -> tuple[int, Any]:
            content = body["messages"][0]["content"]
            pictures = sum(part["type"] == "image_url" for part in content)
            return 200, self.reply | {"usage": {"prompt_tokens": 10 + 256 * pictures, "completion_tokens": 1}}

        self.answer = answer
        return self

    def stream(self, *texts: str, last: str = "[DONE]", endless: bool = False) -> None:
        """Stream these pieces; `last` ends the stream; an `endless` one ends when the asker leaves."""
        chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        self.events = [json.dumps(chunk) for chunk in [*chunks, end]] + ([last] if last else [])
        if endless:
            self.events = self.events[: len(texts)]
            self.endless.set()

    def close(self) -> None:
        self.endless.clear()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def questions(n: int, text: str = "Is it {}?") -> list[Query]:
    return [Query(str(i), text.format(i), "image", np.full((8, 6, 3), 7, np.uint8)) for i in range(n)]


def printable(text: str) -> str:
    """The letters of a random model's text that are shown: it also writes control characters."""
    return "".join(letter for letter in text if letter.isprintable()).strip()
