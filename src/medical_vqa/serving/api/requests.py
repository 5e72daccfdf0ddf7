"""Reading requests: bodies that may be JSON or a form, uploads with their options, and clients that disconnect."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.rate_limit import RateLimiter
from medical_vqa.serving.schema.common import MAX_PICTURES, Wire
from medical_vqa.serving.schema.questions import AskRequest
from medical_vqa.serving.service.inputs import Upload
from medical_vqa.serving.service.service import Service

FORM_LIMITS: dict[str, Any] = {"max_files": MAX_PICTURES, "max_fields": 8, "max_part_size": 8192}
_REPEATED = "other_files"  # the one field of a form that may occur several times
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")

MAX_JSON_KEYS = 64
"""Fields of a JSON body."""
MAX_JSON_VALUES = 50_000
"""Values of a JSON body, at any depth: more take seconds to parse and a hundred times their bytes."""
MAX_JSON_ESCAPES = 1_000_000
"""Backslashes of a JSON body: some encoders write one before each slash of a base64 image, every 64 characters."""
_CHECKED_AT_ONCE = 1024 * 1024  # bytes
_PARSED_AT_ONCE = 256 * 1024  # bytes of a body that takes less than a few milliseconds

T = TypeVar("T")


async def get_service(request: Request) -> Service:
    """The service of the application's default model."""
    service: Service = request.app.state.models.default
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]


def choose_service(request: Request, model: str | None, image: str = "") -> Service:
    """The service of the model that answers a request.

    Args:
        request: The request.
        model: That it names; None: none.
        image: Id of its image.

    Raises:
        ApiError: There is no such model (404).
    """
    service: Service = request.app.state.models.choose(model, image)
    return service


async def get_client() -> str:
    """Whose turn the work of a request takes: its tenant's, or its address's."""
    return current_client().queue


ClientDependency = Annotated[str, Depends(get_client)]


async def count_questions(request: Request, questions: int) -> None:
    """Count the questions of a request beyond the first towards its client's rate; raises `ApiError` (429)."""
    limiter: RateLimiter = request.app.state.rate_limiter
    await limiter.count(current_client(), questions - 1)


async def read_upload(
    request: Request,
    image_file: Annotated[UploadFile, File(description="JPEG, PNG, BMP, TIFF, WebP, GIF, DICOM or NIfTI.")],
    frame: Annotated[
        int | None, Form(ge=0, le=1_000_000, description="Which of several frames or slices, from 0.")
    ] = None,
    window_center: Annotated[
        float | None, Form(ge=-1e6, le=1e6, description="Window center, with window_width; DICOM, NIfTI.")
    ] = None,
    window_width: Annotated[float | None, Form(gt=0, le=1e6, description="Window width.")] = None,
) -> Upload:
    """The fields of an upload; raises `ApiError` (422) for half a window, or a field that occurs twice."""
    names = [name for name, _ in (await request.form()).multi_items() if name != _REPEATED]
    if len(set(names)) < len(names):
        raise ApiError(422, "invalid", "a field occurs twice; send each once, and several pictures to POST /series")
    if window_center is None and window_width is None:
        return Upload(await image_file.read(), frame)
    if window_center is None or window_width is None:
        raise ApiError(422, "invalid", "a window needs both window_center and window_width")
    return Upload(await image_file.read(), frame, (window_center, window_width))


UploadDependency = Annotated[Upload, Depends(read_upload)]


class BoundedJsonRoute(APIRoute):
    """A route with a JSON body, which is checked before any of it is turned into objects."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the check."""
        handle = super().get_route_handler()

        async def handle_checked(request: Request) -> Response:
            if self.body_field is not None:
                request = _JsonRequest(request.scope, request.receive)
                body = await request.body()
                if len(body) > _PARSED_AT_ONCE:
                    await asyncio.to_thread(check_json, body)
                else:
                    check_json(body)
            return await handle(request)

        return handle_checked


class _JsonRequest(Request):
    """A request whose JSON is parsed without a copy of the body as text, which may take four times its bytes."""

    async def json(self) -> Any:
        """The body's value; raises `JSONDecodeError`."""
        try:
            return from_json(await self.body())
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class DirectRoute(APIRoute):
    """A route whose function reads the request itself and returns the wire type: FastAPI describes it, and no more.

    Resolving dependencies, exit stacks and the validation of what this server made itself cost more than an answer from
    the cache.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self.methods and scope["method"] not in self.methods:
            raise HTTPException(405, headers={"Allow": ", ".join(self.methods)})
        request = Request(scope, receive, send)
        result: Wire | bytes = await self.endpoint(request, request.app.state.models.default)
        body = result if isinstance(result, bytes) else result.model_dump_json().encode()
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class DirectMiddleware:
    """Passes requests for direct routes to them, past the search for a route and what else surrounds the others."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        """`routes` are the routers' whose paths have no parameters."""
        self._app = app
        self._routes = {(method, route.path): route for route in _direct(routes) for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        route = None
        if scope["type"] == "http" and not scope.get("root_path"):
            route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        await route.handle(scope, receive, send)


def _direct(routes: Sequence[BaseRoute]) -> Iterator[DirectRoute]:
    return (route for route in routes if isinstance(route, DirectRoute))


def check_json(body: bytes) -> None:
    """Refuse a JSON body with too many values or fields.

    Commas and brackets are counted where they stand, in texts too: an upper bound that costs nothing.

    Raises:
        ApiError: 422.
    """
    values = escapes = 0
    for start in range(0, len(body), _CHECKED_AT_ONCE):  # other threads run between the pieces
        piece = body[start : start + _CHECKED_AT_ONCE]
        values += sum(map(piece.count, (b",", b"[", b"{", b":")))
        escapes += piece.count(b"\\")
    if values > MAX_JSON_VALUES:
        raise ApiError(422, "invalid", f"the body has more than {MAX_JSON_VALUES:,} JSON values; send fewer")
    if escapes > MAX_JSON_ESCAPES:
        raise ApiError(422, "invalid", f"the body has more than {MAX_JSON_ESCAPES:,} escaped characters; send fewer")
    if len(body) <= _PARSED_AT_ONCE and body.count(b":") > MAX_JSON_KEYS:
        with contextlib.suppress(ValueError):  # FastAPI says where it is no JSON
            _check_keys(from_json(body))


def _check_keys(fields: Any) -> None:
    if isinstance(fields, dict) and len(fields) > MAX_JSON_KEYS:
        raise ApiError(
            422, "invalid", f"the body has more than {MAX_JSON_KEYS} fields; see /docs for those it may have"
        )


async def read_ask_request(request: Request) -> AskRequest:
    """The question in a JSON or form body; raises `RequestValidationError` or `ApiError`."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type == "application/json":
            body = await request.body()
            check_json(body)
            return AskRequest.model_validate_json(body)
        if content_type in _FORM_TYPES:
            async with request.form(**FORM_LIMITS) as form:
                fields = form.multi_items()
                if fields and fields[0][0].lstrip().startswith("{"):
                    raise ApiError(
                        415, "unsupported_media_type", "the body is JSON; send it with Content-Type: application/json"
                    )
                if len(dict(fields)) < len(fields):
                    raise ApiError(422, "invalid", "a field occurs twice; send each once")
                return AskRequest.model_validate(dict(fields))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**detail, "loc": ("body", *detail["loc"])} for detail in errors]) from None
    raise ApiError(415, "unsupported_media_type", "expected JSON or a form with image_id and question")


def ask_request_openapi() -> dict[str, Any]:
    """The OpenAPI description of the body that `read_ask_request` reads."""
    schema = AskRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    fields = {
        name: _without_null(field) for name, field in schema["properties"].items() if field.get("type") != "array"
    }
    form = {**schema, "properties": fields}  # a field of a form occurs once
    content = {"application/json": {"schema": schema}, **{form_type: {"schema": form} for form_type in _FORM_TYPES}}
    return {"requestBody": {"required": True, "content": content}}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field in a form, which is absent and never null."""
    if "anyOf" not in field:
        return field
    (present,) = [option for option in field["anyOf"] if option != {"type": "null"}]
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    return {**present, **rest}


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is canceled when the client disconnects; the body must have been read."""
    task = asyncio.create_task(work)
    disconnect = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
