"""MedEvalKit: equality of lower-case texts after a lead-in such as "answer is"; the rule depends on the dataset.

SLAKE's open questions are compared as they are and its closed ones without full stops. VQA-RAD and PathVQA are closed
where the reference is yes or no, and open otherwise; multiple choice is compared with the letter and the choice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import lru_cache

from medical_vqa.evaluation.metrics.base import Mean, is_closed, is_open
from medical_vqa.evaluation.metrics.multiple_choice import choice_of, choices_of, has_choices, multiple_choice
from medical_vqa.evaluation.metrics.token_overlap import set_f1
from medical_vqa.evaluation.protocols.base import YES_NO, Context, Protocol, ProtocolMetric, RowFilter, best_answer_mean
from medical_vqa.schema.records import Example, Prediction

_LEAD_INS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
    "final answer is",
)  # fmt: skip
_NO_BOX = "None"  # what the published code compares where a text says "boxed" and has no box
_YES_NO_OR_OPEN = ("vqa-rad", "path-vqa")
PairRule = Callable[[str, str], float]


def boxed_content(text: str) -> str:
    r"""The content of the last ``\boxed{...}``, whose braces may be nested; ``None`` as text where there is none."""
    start = text.rfind("\\boxed{")
    depth = 1
    inside = text[start + len("\\boxed{") :] if start >= 0 else ""
    for position, character in enumerate(inside):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return inside[:position].strip()
    return _NO_BOX


def tagged_content(text: str, tag: str = "answer") -> str:
    """All that is between the tags, with spaces between; the text itself where there is nothing."""
    closed = text[: text.rfind(f"</{tag}>") + len(f"</{tag}>")]  # each of the opening tags in it has a closing one
    parts = re.findall(f"<{tag}>(.*?)</{tag}>", closed, re.DOTALL)
    return "".join(f"{part} " for part in parts).strip() or text


@lru_cache(maxsize=1 << 14)
def extracted(response: str) -> str:
    """The first step, on the response as it is: the box, or what is in the tags."""
    boxed = boxed_content(response)
    if boxed != _NO_BOX:
        return boxed
    return tagged_content(response) if "<answer>" in response else response


@lru_cache(maxsize=1 << 14)
def parsed(response: str) -> str:
    """The second step, in lower case: the box or the tags again, then what follows the last lead-in."""
    text = response.lower()
    if "boxed" in text:
        text = boxed_content(text)
    elif "<answer>" in text:
        text = tagged_content(text)
    for lead_in in _LEAD_INS:
        text = text.split(lead_in)[-1]
    return text


def medevalkit_open(predicted: str, gold: str) -> float:
    """SLAKE, open: equality of the lower-case texts, full stops and spaces included."""
    return float(parsed(extracted(predicted)) == gold.lower())


def medevalkit_closed(predicted: str, gold: str) -> float:
    """SLAKE, closed: equality without full stops and line breaks; a lower-case yes or no must be in the text alone."""
    response = extracted(predicted)
    return _judgement(response, gold) if gold in YES_NO else float(_bare(response) == gold.lower())


def medevalkit_stripped_open(predicted: str, gold: str) -> float:
    """VQA-RAD and PathVQA, open: equality of the lower-case texts without surrounding spaces."""
    return float(parsed(extracted(predicted).lower().strip()) == gold.lower().strip())


def medevalkit_stripped_closed(predicted: str, gold: str) -> float:
    """VQA-RAD and PathVQA, yes/no: the reference is in the text, and the other is not."""
    return _judgement(extracted(predicted).lower().strip(), gold.lower().strip())


def _bare(response: str) -> str:
    return parsed(response).replace("\n", "").replace(".", "")


def _judgement(response: str, gold: str) -> float:
    text = _bare(response)
    return float((("yes" in text) != ("no" in text)) and gold.lower() in text)


def medevalkit_repaired(predicted: str, gold: str) -> float:
    """Equality of both texts in lower case without surrounding spaces and full stops."""
    return float(parsed(extracted(predicted)).strip(" .\n\t") == gold.lower().strip(" .\n\t"))


def medevalkit_recall(predicted: str, gold: str) -> float:
    """What MedEvalKit reports as F1: the fraction of the reference's distinct words that the response contains."""
    words, gold_words = _words(predicted, gold)
    return len(words & gold_words) / len(gold_words) if words and gold_words else 0.0


def medevalkit_precision(predicted: str, gold: str) -> float:
    """What MedEvalKit reports as recall: the fraction of the response's distinct words that the reference contains."""
    words, gold_words = _words(predicted, gold)
    return len(words & gold_words) / len(words) if words and gold_words else 0.0


def medevalkit_f1(predicted: str, gold: str) -> float:
    """F1 of the two sets of words, which MedEvalKit computes and reports as precision."""
    words, gold_words = _words(predicted, gold)
    return set_f1(list(words), list(gold_words))


def _words(predicted: str, gold: str) -> tuple[set[str], set[str]]:
    return set(parsed(extracted(predicted)).lower().split()), set(gold.lower().split())


def published_choice(response: str, choices: list[str], answer: str) -> float:
    """The published rule for multiple choice: letter, choice, or else the choice most similar to the text.

    Args:
        response: The response.
        choices: The texts of the choices, in order.
        answer: The letter or the text of the right one.
    """
    text = response.lower()
    letters = [chr(ord("a") + number) for number in range(len(choices))]
    first, last = text.split("\n\n")[0], text.split("\n\n")[-1].split(".")[0]
    text = first if first in letters else last if last in letters else text
    text = parsed(text).strip().lower().replace("\n", "")
    options = [choice.lower() for choice in choices]
    part = text.split(".")[0].split(":")[-1]
    answer = answer.strip().lower()
    if part == answer:
        return 1.0
    if part in letters:
        return float(options[letters.index(part)] == answer)
    if part in options:
        return float(answer in letters and part == options[letters.index(answer)])
    ratios = [difflib.SequenceMatcher(None, option, text).ratio() for option in options]
    number = ratios.index(max(ratios)) if ratios and max(ratios) > 0 else 0
    return float(answer in (letters[number], options[number]))


def yes_no(example: Example) -> bool:
    """Whether the reference is yes or no, without choices."""
    return not has_choices(example) and any(answer.lower().strip() in YES_NO for answer in example.answers)


def neither_yes_nor_no(example: Example) -> bool:
    """Whether the reference is neither, and there are no choices."""
    return not has_choices(example) and not yes_no(example)


def has_answer_type(example: Example) -> bool:
    """Whether the dataset says that the question is open or closed."""
    return is_open(example) or is_closed(example)


def _choice_metric(context: Context) -> ProtocolMetric:
    """Multiple choice; whether the published code extracts tags first depends on the dataset."""
    extracts = context.dataset in ("omnimedvqa", "medxpertqa-mm")

    def score(prediction: Prediction, example: Example) -> float | None:
        if not has_choices(example):
            return None
        response = tagged_content(prediction.answer) if extracts else prediction.answer
        prefix = ".".join if context.dataset == "medframeqa" else ". ".join
        plain = context.dataset in ("pmc-vqa", "")
        options = [text if plain else prefix((letter, text)) for letter, text in choices_of(example).items()]
        return published_choice(response, options, choice_of(example))

    rule = f"choice|tags:{'extracted' if extracts else 'kept'}|else:most similar choice|v:1"
    return ProtocolMetric(
        Mean("choice", "multiple choice", rule, score, by_text=True),
        multiple_choice("choice"),
        "A text that names no choice counts as the choice most similar to it; repaired, it is wrong.",
    )


def _metrics(context: Context) -> tuple[ProtocolMetric, ...]:
    if any(has_choices(row) for row in context.scored_rows[:1]):
        return (_choice_metric(context),)
    is_slake = context.dataset not in _YES_NO_OR_OPEN and any(map(has_answer_type, context.scored_rows))
    open_rule, closed_rule = (
        (medevalkit_open, medevalkit_closed) if is_slake else (medevalkit_stripped_open, medevalkit_stripped_closed)
    )
    open_rows, closed_rows = (is_open, is_closed) if is_slake else (neither_yes_nor_no, yes_no)
    return _text_metrics(open_rule, closed_rule, open_rows, closed_rows)


def _text_metrics(
    open_rule: PairRule, closed_rule: PairRule, open_rows: RowFilter, closed_rows: RowFilter
) -> tuple[ProtocolMetric, ...]:
    defect = "Spaces and (open) full stops are kept: 'The answer is X.' becomes ' x' and is never right."
    rotated = "Three results are unpacked in the wrong order: what is reported as {0} is {1}."

    def overall(prediction: Prediction, example: Example) -> float:
        rule = open_rule if open_rows(example) else closed_rule
        return max(rule(prediction.answer, answer) for answer in example.answers)

    signature = f"{open_rule.__name__}+{closed_rule.__name__}|rows:all|answers:max|v:2"
    return (
        ProtocolMetric(
            Mean("overall", "total", signature, overall, by_text=True),
            best_answer_mean("overall", "total", medevalkit_repaired),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("open", "open (em)", open_rule, open_rows),
            best_answer_mean("open", "open (em)", medevalkit_repaired, open_rows),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("closed", "closed", closed_rule, closed_rows),
            best_answer_mean("closed", "closed", medevalkit_repaired, closed_rows),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("f1", "open (f1)", medevalkit_recall, open_rows),
            best_answer_mean("f1", "open (f1)", medevalkit_f1, open_rows),
            rotated.format("F1", "recall"),
        ),
        ProtocolMetric(
            best_answer_mean("precision", "open (precision)", medevalkit_f1, open_rows),
            best_answer_mean("precision", "open (precision)", medevalkit_precision, open_rows),
            rotated.format("precision", "F1"),
        ),
        ProtocolMetric(
            best_answer_mean("recall", "open (recall)", medevalkit_precision, open_rows),
            best_answer_mean("recall", "open (recall)", medevalkit_recall, open_rows),
            rotated.format("recall", "precision"),
        ),
    )


PROTOCOL = Protocol(
    name="medevalkit",
    rule="Lower case, the part after a lead-in such as 'answer is'; equality, full stops dropped if closed.",
    citation="alibaba-damo-academy/MedEvalKit, utils/SLAKE, VQA_RAD, PATH_VQA, PMC_VQA ... and utils/utils.py",
    build=_metrics,
    caveat="Published numbers are in both languages and add what a large language model judged right.",
    datasets=(
        "slake",
        "vqa-rad",
        "path-vqa",
        "pmc-vqa",
        "omnimedvqa",
        "medxpertqa-mm",
        "medframeqa",
    ),
)
