"""The answer normalizer of the VQA v2 evaluation, and the scores that several protocols build on it."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from medical_vqa.evaluation.protocols.base import YES_NO

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?!<=\d)\.(?!\d)")  # published so; the typing error makes the first group always true
_MAX_PERIODS = 32
_THOUSANDS = re.compile(r"\d,\d")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_BEFORE_NT = [
    "ai", "are", "ca", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must", "need", "ought",
    "sha", "should", "was", "were", "wo", "would",
]  # fmt: skip
_BEFORE_VE = ["could", "might", "must", "not", "should", "we", "they", "what", "who", "would", "you"]
_BEFORE_D = ["he", "how", "it", "someone", "there", "they", "where", "who", "you"]
_BEFORE_LL = ["how", "it", "somebody", "someone", "something", "they", "what", "who", "why"]
_BEFORE_RE = ["there", "they", "what", "why", "you"]
_BEFORE_S = ["he", "how", "somebody", "someone", "that", "there", "what", "where", "who"]
_BEFORE_DVE = ["he", "it", "she", "somebody", "someone", "something", "there", "they", "we", "who", "you", "y'all"]
_CONTRACTIONS = (
    {f"{w}nt": f"{w}n't" for w in _BEFORE_NT}
    | {f"{w}ve": f"{w}'ve" for w in _BEFORE_VE}
    | {f"{w}d": f"{w}'d" for w in _BEFORE_D}
    | {f"{w}ll": f"{w}'ll" for w in _BEFORE_LL}
    | {f"{w}re": f"{w}'re" for w in _BEFORE_RE}
    | {f"{w}s": f"{w}'s" for w in _BEFORE_S}
    | {f"{w}{wrong}": f"{w}'d've" for w in _BEFORE_DVE for wrong in ("d've", "'dve")}
    | {
        f"{w}{wrong}": f"{w}n't've"
        for w in ("could", "had", "might", "should", "would")
        for wrong in ("nt've", "n'tve")
    }
    | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all", "yall'll": "y'all'll"}
)


@lru_cache(maxsize=1 << 16)
def vqa_normalize(text: str) -> str:
    """Normalize an answer by the VQA v2 evaluation's rule for punctuation, numbers, articles and contractions.

    A punctuation character next to a space somewhere in the text is removed, any other becomes a space (so ``"x-ray"``
    is two words); ``"none"`` is ``"0"`` and ``"two"`` is ``"2"``; full stops are removed unless a digit follows.

    Source: ``processPunctuation`` and ``processDigitArticle`` of the VQA evaluation code (GT-Vision-Lab/VQA,
    vqaEval.py), as used by M2I2 and MUMC; of the contractions those that lower-case text can contain.
    """
    return _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())


@lru_cache(maxsize=1 << 16)
def vqa_med_normalize(text: str) -> str:
    """The same rule as VQA-Med's evaluator applies it to references: line breaks are no spaces, nothing is stripped."""
    return _without_punctuation(text)


@lru_cache(maxsize=1 << 16)
def llava_normalize(text: str) -> str:
    """The same rule as LLaVA-Med and MultiMedEval have it: line breaks are no spaces, and remaining commas go."""
    return _without_punctuation(text.lower()).replace(",", "")


@lru_cache(maxsize=1 << 16)
def label_normalize(text: str) -> str:
    """The same rule as MEVF and QCR make labels by it: remaining commas go, and ``"x ray"`` is ``"xray"``."""
    return _without_punctuation(text).replace(",", "").replace("x ray", "xray")


def _without_punctuation(text: str) -> str:
    without_punctuation = text
    has_thousands = _THOUSANDS.search(text) is not None
    for character in _PUNCTUATION:
        if character in text:
            next_to_space = f"{character} " in text or f" {character}" in text
            replacement = "" if next_to_space or has_thousands else " "
            without_punctuation = without_punctuation.replace(character, replacement)
    # Published so: the flag re.UNICODE is passed as the number of replacements, 32.
    without_periods = _PERIOD.sub("", without_punctuation, count=_MAX_PERIODS)
    words = [_NUMBERS.get(word, word) for word in without_periods.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 16)
def llava_words(answer: str) -> Counter[str]:
    """The words of an answer after `llava_normalize`, applied twice as LLaVA-Med does, with their numbers."""
    return Counter(llava_normalize(llava_normalize(answer)).split())


def vqa_equal(predicted: str, gold: str) -> float:
    """Equality after the VQA normalizer."""
    return float(vqa_normalize(predicted) == vqa_normalize(gold))


def label_equal(predicted: str, gold: str) -> float:
    """Equality of the labels that MEVF and QCR make."""
    return float(label_normalize(predicted) == label_normalize(gold))


def contains_phrase(predicted: str, gold: str) -> float:
    """Whether the text contains the reference as whole consecutive words, and not both yes and no."""
    words, phrase = vqa_normalize(predicted).split(), vqa_normalize(gold).split()
    starts = range(len(words) - len(phrase) + 1)
    contained = bool(phrase) and any(words[start : start + len(phrase)] == phrase for start in starts)
    both = set(phrase) <= YES_NO <= set(words)
    return float(contained and not both)
