"""One conversation in memory: its present version, whoever waits for the next, and the questions being answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.conversations import Conversation, ConversationImage, ConversationTurn


@dataclass
class OpenConversation:
    """A conversation in memory."""

    name: str
    """In the store; it has the owner in it, so that the id of another tenant's conversation names nothing."""
    conversation: Conversation
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, with each version."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    answering: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The questions that are being answered, by key."""
    rendered: dict[tuple[str, str], tuple[ConversationTurn, bytes]] = field(default_factory=dict)
    """The JSON of each question as it is now, by image and key."""

    @property
    def turns(self) -> int:
        """How many questions it has."""
        return sum(len(case.turns) for case in self.conversation.cases)

    def case(self, image_id: str) -> ConversationImage:
        """One of its images; raises `ApiError` (404)."""
        for case in self.conversation.cases:
            if case.image.image_id == image_id:
                return case
        raise ApiError(404, "unknown_image", "the conversation has no such image (any more); upload it again")

    def replace(self, cases: list[ConversationImage], *, wake: bool = True) -> None:
        """Replace its images, and wake whoever waits for a new version."""
        version = self.conversation.version + wake
        self.conversation = self.conversation.model_copy(update={"cases": cases, "version": version})
        if wake:
            self.changed.set()
            self.changed = asyncio.Event()

    def change_case(self, image_id: str, update: dict[str, object], *, wake: bool = True) -> None:
        """Change fields of one of its images."""
        cases = [
            case.model_copy(update=update) if case.image.image_id == image_id else case
            for case in self.conversation.cases
        ]
        self.replace(cases, wake=wake)

    def change_turn(self, image_id: str, key: str, update: dict[str, object]) -> None:
        """Change fields of one question; one that was deleted stays so."""

        def changed(case: ConversationImage) -> ConversationImage:
            turns = [turn.model_copy(update=update) if turn.key == key else turn for turn in case.turns]
            return case.model_copy(update={"turns": turns})

        self.replace([changed(case) if case.image.image_id == image_id else case for case in self.conversation.cases])

    def to_json(self) -> bytes:
        """The conversation as JSON; what has not changed since the last time is not rendered again."""
        rendered: dict[tuple[str, str], tuple[ConversationTurn, bytes]] = {}
        cases = []
        for case in self.conversation.cases:
            turns = []
            for turn in case.turns:
                key = (case.image.image_id, turn.key)
                known = self.rendered.get(key)
                if known is None or known[0] is not turn:
                    known = (turn, turn.model_dump_json().encode())
                rendered[key] = known
                turns.append(known[1])
            cases.append(_with_list(case.model_copy(update={"turns": []}).model_dump_json(), "turns", turns))
        self.rendered = rendered
        return _with_list(self.conversation.model_copy(update={"cases": []}).model_dump_json(), "cases", cases)


def _with_list(text: str, name: str, items: Sequence[bytes]) -> bytes:
    """JSON with an empty list filled; in texts quotation marks are escaped."""
    before, empty, behind = text.encode().partition(f'"{name}":[]'.encode())
    return b"".join([before, empty[:-1], b",".join(items), b"]", behind])
