"""Conversations about images: LLaVA JSON, ShareGPT, and OpenAI ``messages``, with several turns and several images.

One row of LLaVA JSON, of ShareGPT (as LLaMA-Factory reads it), and of messages::

    {"id": "7", "image": "7.jpg", "conversations": [{"from": "human", "value": "<image>\\nIs it a CT?"},
                                                    {"from": "gpt", "value": "Yes"}]}
    {"messages": [{"role": "user", "content": "<image>Is it a CT?"}, {"role": "assistant", "content": "Yes"}],
     "images": ["7.jpg"]}
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is it a CT?"},
                                               {"type": "image_url", "image_url": {"url": "7.jpg"}}]},
                  {"role": "assistant", "content": "Yes"}]}

Every question with the answer after it is a row. The turns before it, the system message and the images up to it are
its context; images stand where their tokens are, or before the first question where there are no tokens. The number of
image tokens must be the number of images. The split is part of a file's name, or a field ``split``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, row_split, split_of_name
from medical_vqa.data.formats.table_files import table_rows
from medical_vqa.data.formats.tables import other_facts, own_card, table_paths
from medical_vqa.data.formats.values import answer_text, as_text, name_text, question_text
from medical_vqa.errors import DataError
from medical_vqa.io import json_type
from medical_vqa.schema.records import Turn

_TOKEN = re.compile(r"<image(?:-?placeholder)?>|<\|image(?:_pad|_\d+)?\|>|<img>(?:</img>)?")
_TURNS = ("conversations", "conversatons", "messages", "conversation")  # the second is LLaVA-Med's spelling
_IMAGES = ("image", "images", "image_path", "img")
_IMAGE_PARTS = ("image_url", "image", "input_image")
_PLACE = "\ufffc"
"""Where an image is among the parts of a message (Unicode's replacement for an object)."""
_ROLES = {"human": "question", "user": "question", "gpt": "answer", "assistant": "answer", "model": "answer",
          "system": "system", "developer": "system"}  # fmt: skip


class Conversations:
    """Reader of files of conversations.

    Args:
        card: Card of the format.
    """

    def __init__(self, card: DatasetCard) -> None:
        self.card = card

    def read(self, source: Path) -> Published:
        """Parse the JSON files of a folder; raises `DataError` with file and row where a row cannot be read."""
        builder = DatasetBuilder(self.card.name, source)
        for path in table_paths(source):
            for place, row in builder.numbered(path, table_rows(path)):
                _add(builder, row, path, place)
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def llava_json() -> Conversations:
    """The ``llava-json`` format."""
    return Conversations(own_card("llava-json", "conversations in LLaVA's layout"))


def sharegpt() -> Conversations:
    """The ``sharegpt`` format."""
    return Conversations(own_card("sharegpt", "conversations in ShareGPT's layout"))


def messages() -> Conversations:
    """The ``messages`` format."""
    return Conversations(own_card("messages", "conversations as OpenAI messages"))


@dataclass(slots=True)
class _Conversation:
    """What a row of a file says."""

    turns: list[Turn] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Turn and character of each image."""
    system: str = ""
    unanswered: bool = False
    """Whether a question without an answer ends it."""


def _add(builder: DatasetBuilder, row: Mapping[str, Any], path: Path, place: str) -> None:
    name = next((name for name in _TURNS if isinstance(row.get(name), list)), None)
    if name is None:
        raise DataError(
            f"{place}: has no list of turns (conversations or messages); it has {', '.join(row) or 'no field'}"
        )
    turns = [_turn(turn, place) for turn in row[name]]
    listed = [image for name in _IMAGES if row.get(name) for image in _as_list(row[name])]
    marked, references = _with_places(turns, listed, place)
    conversation = _conversation(marked, as_text(row.get("system")).strip(), place)
    images = [builder.image(reference, place) for reference in references]
    if not images:
        raise DataError(f"{place}: has no image; name one, or take the row out")
    split = row_split(row.get("split"), place) or split_of_name(path.name) or "train"
    number, facts = name_text(row.get("id"), "id", place), other_facts(row, {name, *_IMAGES, "id", "split", "system"})
    pairs, places = conversation.turns, conversation.places
    builder.without_answer += conversation.unanswered
    for position, pair in enumerate(pairs):
        images_so_far = sum(turn <= position for turn, _ in places)
        if not images_so_far:  # a turn before the first image is context of the later ones
            builder.without_image += 1
            continue
        builder.add(
            split,
            pair.question,
            [pair.answer],
            images[:images_so_far],
            place,
            number=f"{number}.{position + 1}" if number and len(pairs) > 1 else number,
            facts=facts,
            turns=pairs[:position],
            system=conversation.system,
            places=places[:images_so_far],
        )


def _turn(turn: Any, place: str) -> tuple[str, str, list[Any]]:
    """Role (question, answer or system), text with a mark for each image that is in it, and these images, of a turn."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: expected a turn as an object, got {json_type(turn)}; write role and text")
    role, content = str(turn.get("from", turn.get("role", ""))).lower(), turn.get("value", turn.get("content", ""))
    if role not in _ROLES:
        raise DataError(
            f"{place}: a turn has the role {role!r}; write system, user (human) or assistant (gpt), or take the row out"
        )
    images: list[Any] = []
    if isinstance(content, list) and not all(isinstance(part, str) for part in content):
        text = ""
        for one in content:
            part = {"text": one} if isinstance(one, str) else one
            if not isinstance(part, Mapping) or not (part.get("type") in _IMAGE_PARTS or "text" in part):
                raise DataError(
                    f"{place}: expected the parts of a turn to be text and images, got {one!r:.80}; write it so"
                )
            image = next((part[key] for key in ("image_url", "image") if part.get(key) is not None), None)
            if part.get("type") in _IMAGE_PARTS:
                if image is not None:
                    images.append(image.get("url") if isinstance(image, Mapping) and "url" in image else image)
                text += _PLACE if image is not None else "<image>"
            elif words := as_text(part.get("text")).replace(_PLACE, ""):
                text += f"\n{words}" if text and not text.endswith((_PLACE, "<image>")) else words
        return _ROLES[role], text, images
    text = question_text(content, place) if _ROLES[role] == "question" else answer_text(content, place)
    return _ROLES[role], text.replace(_PLACE, ""), images


def _with_places(
    turns: Sequence[tuple[str, str, list[Any]]], listed: Sequence[Any], place: str
) -> tuple[list[tuple[str, str]], list[Any]]:
    """Turns whose image tokens are all `_PLACE`, and the reference of each image in their order.

    Raises `DataError` where there are not as many tokens as images.
    """
    inside = [image for _, _, images in turns for image in images]
    tokens = sum(len(_TOKEN.findall(text)) for role, text, _ in turns if role == "question")
    for role, text, images in turns:
        if role != "question" and (images or _TOKEN.search(text)):
            raise DataError(f"{place}: has an image in a turn that is not the user's; put images into the user's turns")
    if tokens not in (0, len(listed), len(listed) + len(inside)):
        images_of = len(listed) + len(inside)
        raise DataError(f"{place}: has {tokens} image tokens and {images_of} images; give each image one token")
    if inside and tokens == len(listed) + len(inside):  # tokens name the places of the images in the parts as well
        turns = [(role, text.replace(_PLACE, ""), images) for role, text, images in turns]
        return [(role, _TOKEN.sub(_PLACE, text)) for role, text, _ in turns], [*listed, *inside]
    references: list[Any] = []
    marked: list[tuple[str, str]] = []
    rest, first = list(listed), True
    for role, text, images in turns:
        if role == "question" and first:
            first = False
            if not tokens:
                text = _PLACE * len(rest) + text  # noqa: PLW2901
                images = [*rest, *images]  # noqa: PLW2901
        own = list(images)
        for mark in re.findall(f"{_PLACE}|{_TOKEN.pattern}", text) if role == "question" else ():
            references.append(own.pop(0) if mark == _PLACE else rest.pop(0))
        marked.append((role, _TOKEN.sub(_PLACE, text) if role == "question" else text))
    return marked, references


def _conversation(turns: Sequence[tuple[str, str]], system: str, place: str) -> _Conversation:
    """Questions with their answers; consecutive messages of the user are one question.

    Raises `DataError` where the order of the turns is another.
    """
    conversation = _Conversation(system=system)
    question: str | None = None
    for role, text in turns:
        if role == "system":
            if question is not None or conversation.turns:
                raise DataError(f"{place}: has a system message after the first turn; put it first")
            conversation.system = "\n".join(part for part in (conversation.system, text.strip()) if part)
        elif role == "question":
            question = text if question is None else f"{question}\n{text}"
        elif question is None:
            raise DataError(f"{place}: has an answer without a question before it; begin with the user's turn")
        else:
            words, offsets = _words_and_places(question)
            if not words:
                raise DataError(f"{place}: the question is empty; fill it in or take the row out")
            conversation.places += [(len(conversation.turns), offset) for offset in offsets]
            conversation.turns.append(Turn(words, text.strip()))
            question = None
    conversation.unanswered = question is not None
    if not conversation.turns:
        raise DataError(f"{place}: has no question that is followed by an answer; check the roles of its turns")
    return conversation


def _words_and_places(text: str) -> tuple[str, list[int]]:
    """A question without the marks of images and the space around it, and the character before which each mark was."""
    parts = text.split(_PLACE)
    words = "".join(parts)
    left = len(words) - len(words.lstrip())
    stripped = words.strip()
    offsets: list[int] = []
    position = 0
    for part in parts[:-1]:
        position += len(part)
        offsets.append(min(max(position - left, 0), len(stripped)))
    return stripped, offsets


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
