"""Questions of datasets as they are offered to a person: without the errors of their templates and their typing."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TIMES_MORE = 5
"""A word that is so much commoner is meant by one with two of its letters swapped: brain by brian."""
_LEAST_LETTERS = 4
_IS_ARE = re.compile(r"\b(?:is/are|are/is)\b(?=(?: (?:the|there|any)\b)* ?([a-z]*))", re.IGNORECASE)
_PLURAL_SINGULAR = re.compile(r"\b(\w+)s/\1\b(?= (is\b)?)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")


def misspellings(rows_of_word: Mapping[str, int]) -> dict[str, str]:
    """Words in which two neighboring letters of a much commoner word are swapped, and that word.

    Args:
        rows_of_word: Every word in lower case, with the number of rows that have it.
    """
    meant = {}
    for word, rows in rows_of_word.items():
        swapped = [word[:place] + word[place + 1] + word[place] + word[place + 2 :] for place in range(len(word) - 1)]
        others = [other for other in swapped if other != word and rows_of_word.get(other, 0) >= _TIMES_MORE * rows]
        if len(word) >= _LEAST_LETTERS and others:
            meant[word] = max(others, key=rows_of_word.__getitem__)
    return meant


def well_worded(question: str, meant: Mapping[str, str]) -> str:
    """A question without alternatives by a slash (is/are), with a space behind a comma, and its words spelled as meant.

    Args:
        question: A question in English.
        meant: Of `misspellings`.
    """
    text = _IS_ARE.sub(_verb, question)
    text = _PLURAL_SINGULAR.sub(lambda match: match[1] + ("" if match[2] else "s"), text)
    text = re.sub(r"\s+([?,])", r"\1", re.sub(r",(?=[^\s\d])", ", ", text))
    return _WORD.sub(lambda match: _spelled(match[0], meant), text)


def _verb(match: re.Match[str]) -> str:
    """``are`` before a plural, ``is`` before anything else."""
    is_plural = match[1].endswith("s") and not match[1].endswith(("ss", "is", "us"))
    verb = "are" if is_plural else "is"
    return verb.capitalize() if match[0][0].isupper() else verb


def _spelled(word: str, meant: Mapping[str, str]) -> str:
    right = meant.get(word.lower(), word)
    return right.capitalize() if word[0].isupper() and right != word else right
