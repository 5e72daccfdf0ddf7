"""Client of the backend: one method per route, time-outs, retries, and every failure as one `BackendError`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from medical_vqa.errors import ConfigError, MedicalVqaError
from medical_vqa.io import TemporaryFailure, retry
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.errors import ErrorCode, Problem
from medical_vqa.serving.schema.examples import ExampleImage, Examples
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.schema.models import ModelInfo
from medical_vqa.serving.schema.questions import MAX_ANSWER, AskRequest, Suggestions

FailureCode = Literal[ErrorCode, "unreachable", "response_timeout", "invalid_response", "canceled"]
"""Why a request failed: an error code of the backend, or no connection, no response in time, an unreadable response, or
the visitor canceled it."""

TRANSIENT = frozenset(
    {"unreachable", "response_timeout", "not_ready", "engine_unavailable", "overloaded", "deadline", "timeout"}
)
"""Failures that are likely to disappear without a change."""
PERMANENT = frozenset({"not_an_image", "unsupported_media_type", "too_large", "invalid"})
"""Failures that occur again with the same file."""
_GATEWAY_ERRORS = frozenset({502, 503, 504})
_CONNECT_SECONDS = 5.0
_RESPONSE_SECONDS = 60.0  # a platform that starts an instance holds the request meanwhile
_STREAM_TIMEOUT = httpx2.Timeout(600.0, connect=_CONNECT_SECONDS)  # a slow model may think for minutes
_READY_SECONDS = 4.0
_FIRST_WAIT = 0.5  # seconds before the second attempt
_LONGEST_WAIT = 5.0  # seconds; a person is waiting at the page

WireType = TypeVar("WireType", bound=BaseModel)


class BackendError(MedicalVqaError):
    """A request to the backend failed."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def transient(self) -> bool:
        """Whether the same request is likely to succeed later."""
        return self.code in TRANSIENT


class Backend:
    """A backend at one address; several threads may use it."""

    def __init__(
        self, address: str, *, api_key: str = "", attempts: int = 3, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"backend address: expected http://HOST or https://HOST, got {address!r}; write the scheme too"
            )
        self.address = address.rstrip("/")
        self._attempts = attempts
        self._sleep = sleep
        self._client = httpx2.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(_RESPONSE_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=True,
        )

    def ready(self) -> bool:
        """Whether the backend answers questions now; one short attempt."""
        try:
            return self._client.get("/readyz", timeout=_READY_SECONDS).is_success
        except httpx2.HTTPError:
            return False

    def model(self) -> ModelInfo:
        """Card of the model and limits of the backend."""
        return _parse(ModelInfo, self._request("GET", "/model"))

    def examples(self) -> Examples:
        """Example images."""
        return _parse(Examples, self._request("GET", "/examples"))

    def example_file(self, example: ExampleImage) -> bytes:
        """Bytes of an example's image."""
        return self._request("GET", example.image_path).content

    def upload(
        self, data: bytes, name: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> UploadedImage:
        """Upload an image file.

        Args:
            data: Bytes of the file.
            name: File name.
            frame: Index of the frame, from 0; None: the backend's choice.
            window: Window center and width; None: the window of the file's header.

        Returns:
            The id of the image and what the backend read from the file.

        Raises:
            BackendError: The file was refused or the backend did not respond.
        """
        form = {}
        if frame is not None:
            form["frame"] = str(frame)
        if window is not None:
            form["window_center"] = f"{window[0]:g}"
            form["window_width"] = f"{window[1]:g}"
        files = {"image_file": (name, data)}
        return _parse(UploadedImage, self._request("POST", "/upload_image", files=files, data=form))

    def picture(self, image_id: str) -> bytes:
        """PNG of an uploaded image as the model receives it."""
        return self._request("GET", f"/images/{image_id}/picture").content

    def suggested_questions(self, image_id: str, language: str = "en") -> list[str]:
        """Questions that suit an uploaded image and the model, in a language; none where the model does not read it."""
        return _parse(Suggestions, self._request("GET", f"/images/{image_id}/questions?language={language}")).questions

    def ask(self, image_id: str, question: str, *, attention_map: bool) -> Answer:
        """Ask a question about an uploaded image.

        Args:
            image_id: Id from `upload`.
            question: One line of text.
            attention_map: Whether to request an attention map.

        Returns:
            The answer, also where the model abstains.

        Raises:
            BackendError: The question was refused or the backend did not respond.
        """
        body = AskRequest.model_construct(image_id=image_id, question=question, attention_map=attention_map)
        return _parse(Answer, self._request("POST", "/ask_question", json=body.model_dump()))

    def ask_streaming(
        self,
        image_id: str,
        question: str,
        *,
        turns: Sequence[tuple[str, str]],
        other_image_ids: Sequence[str],
        on_text: Callable[[str], None],
        canceled: threading.Event,
    ) -> Answer:
        """Ask a question and receive the text while it is written; it is sent once, because a repetition costs again.

        Args:
            image_id: Id from `upload`.
            question: One line of text.
            turns: Earlier questions of the conversation with their answers.
            other_image_ids: Ids of further images of the question.
            on_text: Receives the text so far.
            canceled: Closes the connection once it is set.

        Returns:
            The answer, also where the model abstains.

        Raises:
            BackendError: The question was refused or canceled, or the backend did not respond.
        """
        body = {
            "image_id": image_id,
            "question": question,
            "other_image_ids": list(other_image_ids),
            "turns": [{"question": earlier, "answer": answer[:MAX_ANSWER]} for earlier, answer in turns],
        }
        try:
            with self._client.stream("POST", "/ask_question/stream", json=body, timeout=_STREAM_TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                    raise _error_of(response)
                return _read_events(response, on_text, canceled)
        except httpx2.TimeoutException as error:
            raise BackendError("response_timeout", f"{self.address} did not respond in time") from error
        except httpx2.HTTPError as error:
            message = f"{self.address} cannot be reached ({type(error).__name__})"
            raise BackendError("unreachable", message) from error

    def delete_image(self, image_id: str) -> None:
        """Delete an uploaded image; one that the backend no longer has is not an error."""
        try:
            self._request("DELETE", f"/images/{image_id}")
        except BackendError as error:
            if error.code != "unknown_image":
                raise

    def delete_image_in_background(self, image_id: str) -> None:
        """`delete_image` in a thread; where it fails, the image expires on the backend."""

        def delete() -> None:
            try:
                self.delete_image(image_id)
            except BackendError:
                return

        threading.Thread(target=delete, daemon=True).start()

    def _request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Send a request and repeat it after transient failures; every route may be repeated without harm."""
        return retry(
            lambda: self._send(method, path, **content),
            attempts=self._attempts,
            first_wait=_FIRST_WAIT,
            longest_wait=_LONGEST_WAIT,
            sleep=self._sleep,
        )

    def _send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        try:
            response = self._client.request(method, path, **content)
        except httpx2.ConnectTimeout as error:
            message = f"{self.address} cannot be reached in time"
            raise TemporaryFailure(BackendError("unreachable", message)) from error
        except httpx2.TimeoutException as error:
            raise TemporaryFailure(
                BackendError("response_timeout", f"{self.address} did not respond in time")
            ) from error
        except httpx2.HTTPError as error:
            message = f"{self.address} cannot be reached ({type(error).__name__})"
            raise TemporaryFailure(BackendError("unreachable", message)) from error
        if response.is_success:
            return response
        failure = _error_of(response)
        if failure.transient:
            raise TemporaryFailure(failure, response.headers.get("retry-after"))
        raise failure


def _read_events(response: httpx2.Response, on_text: Callable[[str], None], canceled: threading.Event) -> Answer:
    event = ""
    for line in response.iter_lines():
        if canceled.is_set():
            raise BackendError("canceled", "canceled")
        name, _, data = line.partition(": ")
        if name == "event":
            event = data
        elif name == "data" and event == "text":
            on_text(str(json.loads(data)["text"]))
        elif name == "data" and event == "answer":
            return Answer.model_validate_json(data, extra="ignore")
        elif name == "data" and event == "problem":
            detail = Problem.model_validate_json(data, extra="ignore").detail
            raise BackendError(detail.code, detail.message)
    raise BackendError("invalid_response", "the stream ended without an answer")


def _parse(wire_type: type[WireType], response: httpx2.Response) -> WireType:
    """Ignores fields that this version does not know, so that a newer backend can be used."""
    try:
        return wire_type.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise BackendError("invalid_response", f"expected {wire_type.__name__}, got something else") from error


def _error_of(response: httpx2.Response) -> BackendError:
    try:
        detail = Problem.model_validate_json(response.content, extra="ignore").detail
    except ValidationError:
        code: FailureCode = "not_ready" if response.status_code in _GATEWAY_ERRORS else "invalid_response"
        return BackendError(code, f"HTTP {response.status_code}")
    return BackendError(detail.code, detail.message)
