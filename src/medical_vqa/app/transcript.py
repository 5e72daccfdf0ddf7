"""A conversation as a file: Markdown for people, JSON for programs; neither contains the image."""

from __future__ import annotations

import json
from typing import Any

from medical_vqa.app.asking import Reply
from medical_vqa.app.case import Case, Turn
from medical_vqa.app.client import BackendError
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.text import per_cent


def as_markdown(case: Case, texts: Texts) -> str:
    """Questions and answers with confidence and abstention."""
    lines = [f"# Medical-VQA: {case.name}", "", f"> {texts('research_only')}"]
    for turn in case.turns:
        lines += ["", f"**{turn.question}**", ""]
        lines += [f"- {_sentence(reply, texts)}" for reply in turn.replies]
    return "\n".join(lines) + "\n"


def as_json(case: Case) -> str:
    """Every answer as the backend sent it, without the attention maps."""
    content = {
        "image": case.name,
        "format": case.uploaded.format,
        "header_fields": case.uploaded.header_fields,
        "disclaimer": "Research software: not a medical device and not for diagnosis.",
        "turns": [_turn_content(turn) for turn in case.turns],
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def _sentence(reply: Reply, texts: Texts) -> str:
    if isinstance(reply, BackendError):
        return texts.failure(reply.code)
    confidence = "" if reply.confidence is None else f" ({texts('confidence')} {per_cent(reply.confidence)})"
    answer = f"{reply.answer}{confidence}, {reply.model.name}"
    if not reply.abstained:
        keys = [
            "cut_off" if reply.cut_off else "",
            f"source_{reply.source}" if reply.source else "",
            f"side_{reply.side}" if reply.side else "",
        ]
        return ". ".join([answer, *(texts(key) for key in keys if key)])
    reason = texts.reason(reply.reason_code, reply.reason_arguments, reply.reason)
    return f"{texts.abstained(reply.reason_code)}. {reason} {texts('best_guess')}: {answer}"


def _turn_content(turn: Turn) -> dict[str, Any]:
    return {
        "question": turn.question,
        "frame": turn.view.frame,
        "window": turn.view.window,
        "answers": [
            {"error": reply.code}
            if isinstance(reply, BackendError)
            else reply.model_dump(exclude={"attention_map", "image_id", "question"})
            for reply in turn.replies
        ],
    }
