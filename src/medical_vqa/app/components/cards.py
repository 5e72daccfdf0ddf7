"""The parts of the page that Streamlit has no word for, as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

from html import escape

from medical_vqa.app.client import BackendError
from medical_vqa.app.i18n import Words
from medical_vqa.serving.api.schema import Answer
from medical_vqa.text import per_cent

_MOST_ALTERNATIVES = 3


def header(model: str | None) -> str:
    """Name, what it is, which model answers."""
    chip = f'<span class="mv-chip">{escape(model)}</span>' if model else ""
    return (
        '<div class="mv-brand"><span class="mv-mark" aria-hidden="true"></span>'
        f'<span class="mv-name">Medical-VQA</span>{chip}</div>'
    )


def notice(words: Words) -> str:
    """The note that must always be seen."""
    return f'<div class="mv-notice" role="note">{escape(words("research_only"))}</div>'


def question(words: Words, text: str, note: str = "") -> str:
    """What the person asked."""
    small = f'<span class="mv-small">{escape(note)}</span>' if note else ""
    return (
        f'<div class="mv-question"><span class="mv-hidden">{escape(words("you_asked"))}: </span>'
        f"<h2>{escape(text)}</h2>{small}</div>"
    )


def answer(words: Words, reply: Answer) -> str:
    """An answer with confidence and alternatives; where the model abstains it says so, and folds its guesses away."""
    parts = _unsure(words, reply) if reply.abstained else _sure(words, reply)
    kind = "mv-unsure" if reply.abstained else "mv-sure"
    return f'<div class="mv-card {kind}">{parts}{_foot(words, reply)}</div>'


def failure(words: Words, error: BackendError) -> str:
    """That there is no answer, and why."""
    return f'<div class="mv-card mv-failed" role="alert"><p>{escape(words.problem(error.kind))}</p></div>'


def refused(words: Words, name: str, error: BackendError) -> str:
    """That a file could not be opened, and why; the backend's own sentence below."""
    detail = f'<p class="mv-small" lang="en">{escape(error.message)}</p>' if error.message else ""
    head = f"<p><strong>{escape(words('upload_failed', name=name))}</strong></p>"
    return f'<div class="mv-card mv-failed" role="alert">{head}<p>{escape(words.problem(error.kind))}</p>{detail}</div>'


def asleep(words: Words, host: str, *, long: bool) -> str:
    """The page while the backend starts."""
    more = f"<p>{escape(words('asleep_long', host=host))}</p>" if long else ""
    return (
        '<div class="mv-asleep" role="status"><span class="mv-pulse" aria-hidden="true"></span>'
        f"<h1>{escape(words('asleep'))}</h1><p>{escape(words('asleep_more'))}</p>{more}</div>"
    )


def facts(values: list[str]) -> str:
    """A line of facts."""
    inner = "".join(f"<li>{escape(value)}</li>" for value in values if value)
    return f'<ul class="mv-facts">{inner}</ul>' if inner else ""


def small(text: str) -> str:
    """A line of small print."""
    return f'<p class="mv-small">{escape(text)}</p>'


def title(text: str, *, level: int = 2) -> str:
    """A small heading."""
    return f'<h{level} class="mv-title">{escape(text)}</h{level}>'


def hero(words: Words) -> str:
    """What the page is for."""
    return f'<div class="mv-hero"><h1>{escape(words("start"))}</h1><p>{escape(words("start_more"))}</p></div>'


def _sure(words: Words, reply: Answer) -> str:
    said = f'<p class="mv-answer">{escape(reply.answer)}</p>{_confidence(words, reply.confidence)}'
    bars = _bars(reply)
    return f'{said}<div class="mv-others">{small(words("alternatives"))}{bars}</div>' if bars else said


def _unsure(words: Words, reply: Answer) -> str:
    """No bar: of a question that it does not understand a model may be very sure."""
    reason = f'<p lang="en">{escape(reply.reason)}</p>' if reply.reason else f"<p>{escape(words('not_sure_more'))}</p>"
    guess = small(f"{words('best_guess')}: {reply.answer}")
    if reply.confidence is not None:
        guess = _bar(reply.answer, reply.confidence, "mv-other")
    return (
        f'<p class="mv-answer">{escape(words("not_sure"))}</p>{reason}'
        f'<details class="mv-guess"><summary>{escape(words("guesses"))}</summary>{guess}{_bars(reply)}</details>'
    )


def _confidence(words: Words, share: float | None) -> str:
    if share is None:
        return small(words("no_confidence"))
    return _bar(words("confidence"), share, "mv-confidence")


def _bar(label: str, share: float, kind: str) -> str:
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return (
        f'<div class="mv-row {kind}"><span class="mv-label">{escape(label)}</span>'
        f'<span class="mv-track" aria-hidden="true"><span class="mv-fill" style="width:{width}%"></span></span>'
        f'<span class="mv-share">{per_cent(share)}</span></div>'
    )


def _bars(reply: Answer) -> str:
    shown = reply.alternatives[:_MOST_ALTERNATIVES]
    return "".join(_bar(other.answer, other.confidence, "mv-other") for other in shown)


def _foot(words: Words, reply: Answer) -> str:
    took = words("answered_by", model=reply.model.name, milliseconds=f"{reply.timings.total_ms:.0f}")
    return f'<p class="mv-foot">{escape(took)}</p>'
