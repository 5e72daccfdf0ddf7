"""HTML of the parts that Streamlit does not provide; every text from outside is escaped."""

from __future__ import annotations

from html import escape

from medical_vqa.app.client import BackendError
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.schema.evidence import Evidence
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.text import per_cent

_MAX_ALTERNATIVES = 3
_EXPLAINED = frozenset({"engine_unavailable", "engine_refused", "invalid"})
"""Failures whose own sentence says more than the page's: which engine, and what it wrote."""


def brand(model_name: str | None) -> str:
    """Name of the page and of the model that answers."""
    chip = f'<span class="mv-chip">{escape(model_name)}</span>' if model_name else ""
    return (
        '<div class="mv-brand"><span class="mv-logo" aria-hidden="true"></span>'
        f'<span class="mv-name">Medical-VQA</span>{chip}</div>'
    )


def disclaimer(texts: Texts) -> str:
    """The disclaimer, which is always visible."""
    return f'<div class="mv-disclaimer" role="note">{escape(texts("research_only"))}</div>'


def intro(texts: Texts) -> str:
    """Purpose of the page."""
    title = escape(texts("intro_title"))
    return f'<div class="mv-intro"><h1>{title}</h1><p>{escape(texts("intro_text"))}</p></div>'


def question(texts: Texts, text: str, note: str = "") -> str:
    """A question of the visitor, with an optional note below."""
    small = f'<span class="mv-small">{escape(note)}</span>' if note else ""
    return (
        f'<div class="mv-question"><span class="mv-hidden">{escape(texts("question_label"))}: </span>'
        f"<h2>{escape(text)}</h2>{small}</div>"
    )


def answer(texts: Texts, reply: Answer) -> str:
    """An answer with confidence and alternatives; an abstention with its reason and the answers folded away."""
    if reply.abstained:
        name = "mv-abstained"
        content = _abstained(texts, reply)
    else:
        name = "mv-answered"
        content = _answered(texts, reply)
    footer = texts("answered_by", model=reply.model.name, milliseconds=f"{reply.timings.total_ms:.0f}")
    return f'<div class="mv-card {name}">{content}<p class="mv-footer">{escape(footer)}</p></div>'


def unfinished(texts: Texts, text: str) -> str:
    """An answer that is being written; a placeholder before its first word."""
    content = escape(text) if text else escape(texts("answering"))
    name = "mv-answer" if text else "mv-small"
    return f'<div class="mv-card mv-unfinished" aria-live="polite"><p class="{name}">{content}</p></div>'


def failure(texts: Texts, error: BackendError) -> str:
    """A question without an answer, and the reason."""
    detail = f'<p class="mv-small" lang="en">{escape(error.message)}</p>' if error.code in _EXPLAINED else ""
    return f'<div class="mv-card mv-failed" role="alert"><p>{escape(texts.failure(error.code))}</p>{detail}</div>'


def refused_file(texts: Texts, name: str, error: BackendError) -> str:
    """A file that could not be opened, the reason, and the backend's own sentence below."""
    title = escape(texts("upload_failed", name=name))
    detail = f'<p class="mv-small" lang="en">{escape(error.message)}</p>' if error.message else ""
    return (
        f'<div class="mv-card mv-failed" role="alert"><p><strong>{title}</strong></p>'
        f"<p>{escape(texts.failure(error.code))}</p>{detail}</div>"
    )


def starting(texts: Texts, host: str, *, slow: bool) -> str:
    """The page while the backend starts."""
    hint = f"<p>{escape(texts('starting_slow', host=host))}</p>" if slow else ""
    return (
        '<div class="mv-starting" role="status"><span class="mv-pulse" aria-hidden="true"></span>'
        f"<h1>{escape(texts('starting'))}</h1><p>{escape(texts('starting_text'))}</p>{hint}</div>"
    )


def facts(values: list[str]) -> str:
    """A line of facts about the image."""
    items = "".join(f"<li>{escape(value)}</li>" for value in values if value)
    return f'<ul class="mv-facts">{items}</ul>' if items else ""


def small(text: str) -> str:
    """A line of small print."""
    return f'<p class="mv-small">{escape(text)}</p>'


def title(text: str) -> str:
    """A small heading."""
    return f'<h2 class="mv-title">{escape(text)}</h2>'


def _answered(texts: Texts, reply: Answer) -> str:
    html = f'<p class="mv-answer">{escape(reply.answer)}</p>'
    if reply.confidence is None:
        html += small(texts("no_confidence"))
    else:
        label = "agreement" if reply.confidence_basis == "agreement" else "confidence"
        html += _bar(texts(label), reply.confidence, "mv-confidence")
    html += _notes(texts, reply)
    if reply.alternatives:
        html += f'<div class="mv-alternatives">{small(texts("alternatives"))}{_alternatives(reply)}</div>'
    return html


def _abstained(texts: Texts, reply: Answer) -> str:
    """Without a confidence bar: a model may be very sure about a question that it does not understand."""
    reason = f"<p>{escape(texts.reason(reply.reason_code, reply.reason_arguments, reply.reason))}</p>"
    if reply.confidence is None:
        withheld = small(f"{texts('best_guess')}: {reply.answer}")
    else:
        withheld = _bar(reply.answer, reply.confidence, "mv-alternative")
    return (
        f'<p class="mv-answer">{escape(texts.abstained(reply.reason_code))}</p>{reason}<details class="mv-withheld">'
        f"<summary>{escape(texts('withheld_answers'))}</summary>{withheld}{_alternatives(reply)}</details>"
    )


def _notes(texts: Texts, reply: Answer) -> str:
    """Whether its end is missing, where the answer comes from, whose left and right it names, and what is outlined."""
    notes = []
    if reply.cut_off:
        notes.append(("mv-cut-off", texts("cut_off")))
    if reply.source is not None:
        notes.append((f"mv-source mv-source-{reply.source}", texts(f"source_{reply.source}")))
    if reply.side is not None:
        notes.append(("mv-side", texts(f"side_{reply.side}")))
    if reply.evidence:
        names = "; ".join(outlined_name(texts, item) for item in reply.evidence)
        notes.append(("mv-outlined", texts("outlined", names=names)))
    items = "".join(f'<li class="{name}">{escape(text)}</li>' for name, text in notes)
    return f'<ul class="mv-notes">{items}</ul>' if items else ""


def outlined_name(texts: Texts, item: Evidence) -> str:
    """Name of what is outlined, with its area where that is known and the outline is more than a box."""
    name = texts.name(item.name)
    if item.learned_from == "box":
        return texts("outlined_box", name=name)
    return name if item.area_mm2 is None else texts("outlined_area", name=name, area=f"{item.area_mm2 / 100:.1f}")


def _alternatives(reply: Answer) -> str:
    alternatives = reply.alternatives[:_MAX_ALTERNATIVES]
    return "".join(_bar(other.answer, other.confidence, "mv-alternative") for other in alternatives)


def _bar(label: str, probability: float, name: str) -> str:
    width = f"{100 * min(max(probability, 0.0), 1.0):.1f}"
    return (
        f'<div class="mv-bar {name}"><span class="mv-label">{escape(label)}</span>'
        f'<span class="mv-track" aria-hidden="true"><span class="mv-fill" style="width:{width}%"></span></span>'
        f'<span class="mv-percent">{per_cent(probability)}</span></div>'
    )
