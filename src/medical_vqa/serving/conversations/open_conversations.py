"""The conversations that are open in memory, and the store that has them all."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

from pydantic import ValidationError

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.conversations.open_conversation import OpenConversation
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.calls import StoreCalls
from medical_vqa.serving.image_store.repository import stored_name
from medical_vqa.serving.schema.common import IMAGE_ID
from medical_vqa.serving.schema.conversations import Conversation, ConversationTurn

_OPEN_CONVERSATIONS = 1_000  # in memory; others are read from the store again
_OPEN_TURNS = 10_000  # of all of them, some kilobytes each
_ID = re.compile(IMAGE_ID)


class OpenConversations:
    """Conversations by id, those used last in memory; used from the event loop alone."""

    def __init__(self, calls: StoreCalls, resume: Callable[[OpenConversation, str, ConversationTurn], None]) -> None:
        """Keep conversations in a store.

        Args:
            calls: Of the store that has every conversation.
            resume: Answers a question about an image (its id) whose server stopped before it had answered.
        """
        self._calls = calls
        self._resume = resume
        self._open: dict[str, OpenConversation] = {}  # the least recently used first

    async def create(self, lifetime: float | None) -> Conversation:
        """An empty conversation under an id that cannot be guessed; `lifetime` in seconds after its last change."""
        conversation_id = f"{secrets.token_hex(12)}-{secrets.token_urlsafe(16)}"
        conversation = Conversation(id=conversation_id, version=0, cases=[], expires_in_seconds=lifetime)
        name = stored_name(conversation_id, current_client().owner)
        entry = self._open[name] = OpenConversation(name, conversation)
        self.make_room()
        await self.save(entry)
        return conversation

    async def get(self, conversation_id: str) -> OpenConversation:
        """The client's conversation, without the images whose time is over; raises `ApiError` (404)."""
        if not _ID.match(conversation_id):
            raise unknown_conversation()
        name = stored_name(conversation_id, current_client().owner)
        entry = self._open.pop(name, None)
        if entry is not None:
            self._open[name] = entry
        if entry is not None and not await self._calls.contains(name):
            self._open.pop(name, None)  # its time is over, or it was deleted elsewhere
            raise unknown_conversation()
        if entry is None:
            entry = await self._load(name)
        now = 1000 * time.time()
        cases = [case for case in entry.conversation.cases if case.expires_at is None or case.expires_at > now]
        if len(cases) < len(entry.conversation.cases):
            entry.replace(cases)
            await self.save(entry)
        return entry

    async def _load(self, name: str) -> OpenConversation:
        blob = await self._calls.get(name)
        if blob is None:
            raise unknown_conversation()
        try:
            conversation = Conversation.model_validate_json(blob)
        except ValidationError:
            raise unknown_conversation() from None
        entry = self._open.setdefault(name, OpenConversation(name, conversation))
        self.make_room()
        for case in conversation.cases:
            for turn in case.turns:
                if turn.status == "pending" and turn.key not in entry.answering:  # the server that answered it stopped
                    self._resume(entry, case.image.image_id, turn)
        return entry

    def make_room(self) -> None:
        """Leave conversations to the store that were not used for long and have no question that is being answered."""
        turns = sum(entry.turns for entry in self._open.values())
        for name, entry in [*self._open.items()][:-1]:
            if len(self._open) <= _OPEN_CONVERSATIONS and turns <= _OPEN_TURNS:
                return
            if not entry.answering and not entry.writing.locked():
                turns -= entry.turns
                del self._open[name]
                entry.changed.set()  # who waits for a change finds it in the store

    async def save(self, entry: OpenConversation) -> None:
        """Write a conversation to the store."""
        async with entry.writing:  # in order: an older version must not overwrite a newer one
            await self._calls.put(entry.name, entry.to_json())

    def wake_all(self) -> None:
        """Wake every reader that waits for a change."""
        for entry in self._open.values():
            entry.changed.set()


def unknown_conversation() -> ApiError:
    """404: there was no such conversation, or it was deleted, or its time is over."""
    return ApiError(404, "unknown_conversation", "this conversation has ended; begin a new one")
