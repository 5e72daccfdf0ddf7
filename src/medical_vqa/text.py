"""How an answer is normalised before it is compared: one pure function per published rule.

``squad_normalize("The left lung.")`` is ``"left lung"``; ``squad_normalize("X-Ray")`` is ``"xray"``.
"""

from __future__ import annotations

import re
import string

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normalize(text: str) -> str:
    """Normalise an answer by the SQuAD v2 rule: lower case, no ASCII punctuation, no articles, single blanks.

    The order is that of the published rule and matters: punctuation goes first, so ``"a.n"`` becomes the
    article ``"an"`` and disappears. Only ASCII punctuation is dropped: a Chinese full stop stays. The rule is
    idempotent.

    Source: ``normalize_answer`` of the official SQuAD 2.0 evaluation script, evaluate-v2.0.py.
    """
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def tokens(text: str) -> list[str]:
    """The words of an answer after `squad_normalize`, in order; Chinese without blanks is one word."""
    return squad_normalize(text).split()


def per_cent(share: float) -> str:
    """A share in [0, 1] for people: ``83%``, and ``<1%`` instead of a zero that is none."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
