"""Conversations about images: LLaVA JSON, ShareGPT, and OpenAI ``messages``, with several turns and several images.

One row of LLaVA JSON, of ShareGPT (as LLaMA-Factory reads it), and of messages::

    {"id": "7", "image": "7.jpg", "conversations": [{"from": "human", "value": "<image>\\nIs it a CT?"},
                                                    {"from": "gpt", "value": "Yes"}]}
    {"messages": [{"role": "user", "content": "<image>Is it a CT?"}, {"role": "assistant", "content": "Yes"}],
     "images": ["7.jpg"]}
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is it a CT?"},
                                               {"type": "image_url", "image_url": {"url": "7.jpg"}}]},
                  {"role": "assistant", "content": "Yes"}]}

Every question with the answer after it is a row; all rows of one conversation have its images. The number of image
tokens must be the number of images. The split is part of a file's name, or a field ``split``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, split_of_name
from medical_vqa.data.formats.table_files import table_rows
from medical_vqa.data.formats.tables import other_facts, own_card, table_paths
from medical_vqa.data.formats.values import as_text
from medical_vqa.errors import DataError

_TOKEN = re.compile(r"<image(?:-?placeholder)?>|<\|image(?:_pad|_\d+)?\|>|<img>(?:</img>)?")
_TURNS = ("conversations", "conversatons", "messages", "conversation")  # the second is LLaVA-Med's spelling
_IMAGES = ("image", "images", "image_path", "img")
_ASKING, _ANSWERING = ("human", "user"), ("gpt", "assistant", "model")


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
            for number, row in enumerate(table_rows(path), 1):
                _add(builder, row, path, f"{path.relative_to(source).as_posix()} row {number}")
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


def _add(builder: DatasetBuilder, row: Mapping[str, Any], path: Path, place: str) -> None:
    field = next((name for name in _TURNS if isinstance(row.get(name), list)), None)
    if field is None:
        raise DataError(f"{place}: has no list of turns (conversations or messages); it has {', '.join(row)}")
    turns = [_turn(turn, place) for turn in row[field]]
    references = [image for name in _IMAGES if row.get(name) for image in _as_list(row[name])]
    references += [image for _, _, images in turns for image in images]
    tokens = sum(len(_TOKEN.findall(text)) for role, text, _ in turns if role == "question")
    if tokens and tokens != len(references):
        raise DataError(f"{place}: has {tokens} image tokens and {len(references)} images; give each image one token")
    images = [builder.image(reference, place) for reference in references]
    split = split_of_name(as_text(row.get("split"))) or split_of_name(path.name) or "train"
    number, facts = as_text(row.get("id")).strip(), other_facts(row, {field, *_IMAGES, "id", "split"})
    pairs = list(_pairs(turns))
    if not pairs:
        raise DataError(f"{place}: has no question that is followed by an answer; check the roles of its turns")
    for turn, (question, answer) in enumerate(pairs, 1):
        turn_number = f"{number}.{turn}" if number and len(pairs) > 1 else number
        builder.add(split, question, [answer], images, place, number=turn_number, facts=facts)


def _turn(turn: Any, place: str) -> tuple[str, str, list[Any]]:
    """Role (question, answer or other), text and images of a turn."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: expected a turn as an object, got {type(turn).__name__}; write role and text")
    role, content = str(turn.get("from", turn.get("role", ""))).lower(), turn.get("value", turn.get("content", ""))
    images: list[Any] = []
    if isinstance(content, list) and not all(isinstance(part, str) for part in content):
        parts = [part for part in content if isinstance(part, Mapping)]
        for part in parts:
            image = part.get("image_url", part.get("image"))
            if part.get("type") in ("image_url", "image", "input_image") and image is not None:
                images.append(image.get("url") if isinstance(image, Mapping) and "url" in image else image)
        content = "\n".join(as_text(part.get("text")) for part in parts if part.get("text"))
    kind = "question" if role in _ASKING else "answer" if role in _ANSWERING else "other"
    return kind, as_text(content), images


def _pairs(turns: Sequence[tuple[str, str, list[Any]]]) -> Iterator[tuple[str, str]]:
    """Questions without image tokens, each with the answer that follows it."""
    question = None
    for role, text, _ in turns:
        if role == "question":
            question = _TOKEN.sub("", text).strip()
        elif role == "answer" and question:
            yield question, text.strip()
            question = None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
