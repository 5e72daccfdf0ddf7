"""Answers as server-sent events: the text while it is written, then the answer, or the problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.errors import Problem, ProblemDetail

OnText = Callable[[str], None]
BEAT = ": waiting\n\n"
"""A comment of the event stream, which clients ignore."""


_BEAT_SECONDS = 1.0  # a client that reads can then notice that it was canceled, and no proxy closes the connection


async def texts_then_answer(ask: Callable[[OnText], Awaitable[Answer]]) -> AsyncIterator[str | Answer | None]:
    """The growing text of an answer, then the answer; None while nothing happens.

    Whoever stops reading cancels the question. Raises what `ask` raises.
    """
    loop, texts = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    async def run() -> Answer:
        try:
            return await ask(lambda text: _call(loop, texts.put_nowait, text))
        finally:
            loop.call_soon(texts.put_nowait, None)

    task = asyncio.create_task(run())
    try:
        while True:
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    text = await texts.get()
            except TimeoutError:
                yield None
                continue
            if text is None:
                break
            yield text
        yield await task
    finally:
        task.cancel()


async def answer_events(ask: Callable[[OnText], Awaitable[Answer]], metrics: Metrics) -> AsyncIterator[str]:
    """The events of `POST /ask_question/stream`.

    Args:
        ask: Asks, and calls its argument with the text so far.
        metrics: Where a problem is counted.
    """
    try:
        async for part in texts_then_answer(ask):
            if part is None:
                yield BEAT
            elif isinstance(part, Answer):
                yield _event("answer", part.model_dump_json())
            else:
                yield _event("text", json.dumps({"text": part}, ensure_ascii=False))
    except ApiError as error:
        metrics.refused.labels(error.code).inc()
        problem = Problem(detail=ProblemDetail(code=error.code, message=error.message))
        yield _event("problem", problem.model_dump_json())


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)
