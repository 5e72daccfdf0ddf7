"""Conversations of the page: images with their questions and answers, kept on the server for the retention time.

A question belongs to the conversation and not to the connection that sent it: who reloads the page, or loses the
network, finds the answer there, and a question that is sent twice under one key is asked once. A conversation lives in
the image store, so that it survives a restart and other servers find it; the last writer wins where two write at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from dataclasses import dataclass, field

import structlog
from cachetools import LRUCache
from pydantic import ValidationError

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import ImageStore
from medical_vqa.serving.image_store.repository import stored_name
from medical_vqa.serving.schema import IMAGE_ID, Conversation, ConversationImage, ConversationTurn
from medical_vqa.serving.service import Service, Upload

MAX_CASES, MAX_TURNS = 50, 300
"""Images of a conversation, and questions about each."""
_OPEN_CONVERSATIONS = 1_000  # in memory; others are read from the store again
_ID = re.compile(IMAGE_ID)
_LOG = structlog.get_logger("medical_vqa.serving")
_LONGEST_WAIT = 20.0  # seconds that a reader waits for a change; proxies end a request after 30 or 60


@dataclass
class _Open:
    """A conversation in memory."""

    name: str
    """In the store; it has the owner in it, so that the id of another tenant's conversation names nothing."""
    conversation: Conversation
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, with each version."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    answering: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The questions that are being answered, by key."""


class Conversations:
    """Conversations by id; used from the event loop alone."""

    def __init__(self, service: Service, store: ImageStore) -> None:
        self._service = service
        self._store = store
        self._open: LRUCache[str, _Open] = LRUCache(_OPEN_CONVERSATIONS)

    async def create(self) -> Conversation:
        """An empty conversation under an id that cannot be guessed."""
        conversation_id = f"{secrets.token_hex(12)}-{secrets.token_urlsafe(16)}"
        conversation = Conversation(
            id=conversation_id, version=0, cases=[], expires_in_seconds=self._service.settings.store_ttl
        )
        name = stored_name(conversation_id, current_client().owner)
        self._open[name] = _Open(name, conversation)
        await self._write(self._open[name])
        return conversation

    async def read(self, conversation_id: str, *, after: int = -1) -> Conversation:
        """The conversation, as soon as its version is above `after`, or after some seconds as it is.

        Raises:
            ApiError: 404.
        """
        entry = await self._get(conversation_id)
        if entry.conversation.version <= after:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.changed.wait(), _LONGEST_WAIT)
        return entry.conversation

    async def add_image(self, conversation_id: str, upload: Upload, name: str, *, client: str) -> ConversationImage:
        """Upload an image into the conversation; its name is what the user calls it.

        Args:
            conversation_id: Of the conversation.
            upload: The file.
            name: Shown in the list of images.
            client: Who sends it.

        Raises:
            ApiError: The conversation is unknown or full, or the image cannot be read.
        """
        entry = await self._get(conversation_id)
        if len(entry.conversation.cases) >= MAX_CASES:
            raise ApiError(422, "invalid", f"the conversation has {MAX_CASES} images; delete one, or begin another")
        image = await self._service.upload(upload, client=client)
        lifetime = image.expires_in_seconds
        expires_at = None if lifetime is None else round(1000 * (time.time() + lifetime))
        case = ConversationImage(image=image, name=name, turns=[], draft="", expires_at=expires_at)
        await self._change(entry, [*entry.conversation.cases, case])
        return case

    async def ask(self, conversation_id: str, image_id: str, key: str, question: str) -> ConversationTurn:
        """Ask a question; the answer arrives with a later version.

        Args:
            conversation_id: Of the conversation.
            image_id: One of its images.
            key: Chosen by the page; the same key asks once.
            question: In words.

        Raises:
            ApiError: The conversation or image is unknown, or it has too many questions.
        """
        entry = await self._get(conversation_id)
        case = _case(entry.conversation, image_id)
        for turn in case.turns:
            if turn.key == key:
                return turn
        if len(case.turns) >= MAX_TURNS:
            raise ApiError(422, "invalid", f"this image has {MAX_TURNS} questions; upload it again")
        turn = ConversationTurn(
            key=key, question=question.strip(), status="pending", asked_at=round(1000 * time.time())
        )
        await self._change_case(entry, image_id, {"turns": [*case.turns, turn], "draft": ""})
        self._start(entry, image_id, turn)
        return turn

    async def draft(self, conversation_id: str, image_id: str, draft: str) -> None:
        """Keep what the user has typed and not sent; readers are not woken for it."""
        entry = await self._get(conversation_id)
        _case(entry.conversation, image_id)
        await self._change_case(entry, image_id, {"draft": draft}, wake=False)

    async def delete_image(self, conversation_id: str, image_id: str) -> None:
        """Delete an image with its questions and answers; raises `ApiError` where it is unknown."""
        entry = await self._get(conversation_id)
        case = _case(entry.conversation, image_id)
        for turn in case.turns:
            if task := entry.answering.pop(turn.key, None):
                task.cancel()
        try:
            await self._service.delete(image_id)
        except ApiError as error:
            if error.code != "unknown_image":  # its time was over, or it was deleted elsewhere: it is gone
                raise
        await self._change(entry, [c for c in entry.conversation.cases if c.image.image_id != image_id])

    def _start(self, entry: _Open, image_id: str, turn: ConversationTurn) -> None:
        task = asyncio.create_task(self._answer(entry, image_id, turn))
        entry.answering[turn.key] = task
        task.add_done_callback(lambda _: entry.answering.pop(turn.key, None))

    async def _answer(self, entry: _Open, image_id: str, turn: ConversationTurn) -> None:
        changes: dict[str, object]
        try:
            answer = await self._service.ask(image_id, turn.question, attention_map=True)
            changes = {"status": "answered", "answer": answer}
        except ApiError as error:
            changes = {"status": "failed", "failure": error.code}
        except Exception:
            _LOG.exception("a question of a conversation failed")
            changes = {"status": "failed", "failure": "internal"}
        case = next((case for case in entry.conversation.cases if case.image.image_id == image_id), None)
        if case is not None:  # it was not deleted meanwhile
            turns = [other.model_copy(update=changes) if other.key == turn.key else other for other in case.turns]
            await self._change_case(entry, image_id, {"turns": turns})

    async def _get(self, conversation_id: str) -> _Open:
        """The client's conversation, without the images whose time is over; raises `ApiError` (404)."""
        if not _ID.match(conversation_id):
            raise unknown_conversation()
        name = stored_name(conversation_id, current_client().owner)
        entry = self._open.get(name)
        if entry is not None and not await asyncio.to_thread(self._store.contains, name):
            del self._open[name]  # its time is over, or it was deleted elsewhere
            raise unknown_conversation()
        if entry is None:
            entry = await self._load(name)
        now = 1000 * time.time()
        cases = [case for case in entry.conversation.cases if case.expires_at is None or case.expires_at > now]
        if len(cases) < len(entry.conversation.cases):
            await self._change(entry, cases)
        return entry

    async def _load(self, name: str) -> _Open:
        blob = await asyncio.to_thread(self._store.get, name)
        if blob is None:
            raise unknown_conversation()
        try:
            conversation = Conversation.model_validate_json(blob)
        except ValidationError:
            raise unknown_conversation() from None
        entry = self._open.setdefault(name, _Open(name, conversation))
        for case in conversation.cases:
            for turn in case.turns:
                if turn.status == "pending" and turn.key not in entry.answering:  # the server that answered it stopped
                    self._start(entry, case.image.image_id, turn)
        return entry

    async def _change_case(self, entry: _Open, image_id: str, update: dict[str, object], *, wake: bool = True) -> None:
        cases = [
            case.model_copy(update=update) if case.image.image_id == image_id else case
            for case in entry.conversation.cases
        ]
        await self._change(entry, cases, wake=wake)

    async def _change(self, entry: _Open, cases: list[ConversationImage], *, wake: bool = True) -> None:
        """Replace the images of a conversation, wake its readers, and write it to the store."""
        version = entry.conversation.version + wake
        entry.conversation = entry.conversation.model_copy(update={"cases": cases, "version": version})
        if wake:
            entry.changed.set()
            entry.changed = asyncio.Event()
        async with entry.writing:  # in order: an older version must not overwrite a newer one
            await self._write(entry)

    async def _write(self, entry: _Open) -> None:
        blob = entry.conversation.model_dump_json().encode()
        await asyncio.to_thread(self._store.put, entry.name, blob)


def _case(conversation: Conversation, image_id: str) -> ConversationImage:
    for case in conversation.cases:
        if case.image.image_id == image_id:
            return case
    raise ApiError(404, "unknown_image", "the conversation has no such image (any more); upload it again")


def unknown_conversation() -> ApiError:
    """404: there was no such conversation, or it was deleted, or its time is over."""
    return ApiError(404, "unknown_conversation", "this conversation has ended; begin a new one")
