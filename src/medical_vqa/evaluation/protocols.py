"""The scoring rules behind published numbers, each with its citation; numbers compare only under one rule."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.metrics import ExactMatch, Metric, TokenF1


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named rule: which metrics, and where the rule was published."""

    name: str
    """The name on the command line: ``squad_v2``."""
    rule: str
    """What it does to an answer, in one sentence."""
    citation: str
    """Where the rule was published."""
    metrics: tuple[Metric, ...]
    """The first one is the headline."""


_PROTOCOLS = (
    Protocol(
        name="squad_v2",
        rule=(
            "Answers are lower-cased, punctuation and the articles a, an, the are dropped and blanks "
            "squeezed; Exact Match asks for equality, F1 for shared words, and the best of several accepted "
            "answers counts."
        ),
        citation=(
            "Rajpurkar, Jia and Liang, Know What You Don't Know: Unanswerable Questions for SQuAD, ACL 2018; "
            "official evaluation script evaluate-v2.0.py"
        ),
        metrics=(ExactMatch(), TokenF1()),
    ),
)


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; raises `ConfigError` that names the nearest known one."""
    known = {protocol.name: protocol for protocol in _PROTOCOLS}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise ConfigError(f"unknown protocol {name!r}; {hint}")
    return known[name]
