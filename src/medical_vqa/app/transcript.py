"""A conversation as a file to keep: Markdown for people, JSON for programs; never the picture."""

from __future__ import annotations

import json
from typing import Any

from medical_vqa.app.cases import Case, Reply, Turn
from medical_vqa.app.client import BackendError
from medical_vqa.app.i18n import Words
from medical_vqa.text import per_cent


def as_markdown(case: Case, words: Words) -> str:
    """Question by question, with confidence and what the model would not answer."""
    head = f"# Medical-VQA: {case.name}\n\n> {words('research_only')}\n"
    return head + "".join(_paragraph(turn, words) for turn in case.turns)


def as_json(case: Case) -> str:
    """Every answer as the backend gave it, without the maps of where the model looked."""
    content = {
        "image": case.name,
        "format": case.uploaded.format,
        "facts": case.uploaded.facts,
        "disclaimer": "Research software: not a medical device and not for diagnosis.",
        "turns": [_turn(turn) for turn in case.turns],
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def _paragraph(turn: Turn, words: Words) -> str:
    lines = [_sentence(reply, words) for reply in turn.replies]
    return f"\n**{turn.question}**\n\n" + "".join(f"- {line}\n" for line in lines)


def _sentence(reply: Reply, words: Words) -> str:
    if isinstance(reply, BackendError):
        return words.problem(reply.kind)
    share = "" if reply.confidence is None else f" ({words('confidence')} {per_cent(reply.confidence)})"
    if reply.abstained:
        unsure = " ".join(part for part in (f"{words('not_sure')}.", reply.reason) if part)
        return f"{unsure} {words('best_guess')}: {reply.answer}{share}, {reply.model.name}"
    return f"{reply.answer}{share}, {reply.model.name}"


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "question": turn.question,
        "frame": turn.view.frame,
        "window": turn.view.window,
        "answers": [
            {"error": reply.kind}
            if isinstance(reply, BackendError)
            else reply.model_dump(exclude={"attention_map", "image_id", "question"})
            for reply in turn.replies
        ],
    }
