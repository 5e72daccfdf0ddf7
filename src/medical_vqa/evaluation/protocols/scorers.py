"""What published scorers do to one answer, as they do it, and the same with its defects mended.

Every function takes the predicted and the reference answer and gives a score in [0, 1]. Names say whose rule it is;
`protocols.py` says where it was published and what each defect changes.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

from medical_vqa.evaluation.metrics.answer_metrics import exact_match, list_items
from medical_vqa.evaluation.metrics.overlap import lcs_f_measure, sentence_bleu
from medical_vqa.evaluation.protocols.nearest import NearestLabel
from medical_vqa.text import squad_normalize, vqa_normalize

Scorer = Callable[[str, str], float]
YES_NO = frozenset({"yes", "no"})
HELM_TOKENS = 20

# --- SQuAD v2, with lists in any order --------------------------------------------------------------------------------


def squad_or_list(predicted: str, gold: str) -> float:
    """SQuAD's exact match, or the same list in another order."""
    items = list_items(gold)
    return max(exact_match(predicted, gold), float(len(items) > 1 and list_items(predicted) == items))


# --- the VQA v2 normalizer: LLaVA-Med, M2I2, MUMC, MEVF, QCR ----------------------------------------------------------


def vqa_equal(predicted: str, gold: str) -> float:
    """Equality after the VQA normalizer."""
    return float(vqa_normalize(predicted) == vqa_normalize(gold))


def llava_recall(predicted: str, gold: str) -> float:
    """LLaVA-Med's recall: a shared word counts as often as the *prediction* says it."""
    ours, theirs = _vqa_words(predicted), _vqa_words(gold)
    shared = sum(n for word, n in ours.items() if word in theirs)
    missed = sum(n for word, n in theirs.items() if word not in ours)
    return shared / (shared + missed) if shared else 0.0


def clipped_recall(predicted: str, gold: str) -> float:
    """Share of the reference's words, each as often as it stands there, that the prediction holds."""
    theirs = _vqa_words(gold)
    return (theirs & _vqa_words(predicted)).total() / theirs.total() if theirs else 0.0


def llava_exact(predicted: str, gold: str) -> float:
    """LLaVA-Med's "exact match": the share of the predicted words that the reference holds."""
    ours, theirs = _vqa_words(predicted), _vqa_words(gold)
    return len(theirs.keys() & ours.keys()) / ours.total() if ours else 0.0


def llava_closed(predicted: str, gold: str) -> float:
    """LLaVA-Med's run_eval.py: the reference is a part of the text, which must also hold the letters yes or no."""
    return llava_closed_batch(predicted, gold) if _has_yes_or_no(predicted) else 0.0


def llava_closed_batch(predicted: str, gold: str) -> float:
    """LLaVA-Med's run_eval_batch.py: the reference is a part of the text, letter by letter."""
    return float(vqa_normalize(gold) in vqa_normalize(predicted))


def llava_closed_unless_wrong(predicted: str, gold: str) -> float | None:
    """An early run_eval.py: as `llava_closed`, but a wrong answer that says yes or no is not counted at all."""
    return (
        None if _has_yes_or_no(predicted) and not llava_closed_batch(predicted, gold) else llava_closed(predicted, gold)
    )


def says(predicted: str, gold: str) -> float:
    """The text says the reference as whole words in a row, and not yes and no at once."""
    ours, theirs = vqa_normalize(predicted).split(), vqa_normalize(gold).split()
    starts = range(len(ours) - len(theirs) + 1)
    found = bool(theirs) and any(ours[start : start + len(theirs)] == theirs for start in starts)
    return float(found and not (set(theirs) <= YES_NO and set(ours) >= YES_NO))


# --- MedEvalKit -------------------------------------------------------------------------------------------------------

_MED_EVAL_LEADS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
    "final answer is",
)  # fmt: skip
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = re.compile(r"boxed\{([^{}]*)\}")


def medevalkit_text(predicted: str) -> str:
    """The part of a response that MedEvalKit compares: lower case, after the last lead-in, blanks kept."""
    text = predicted.lower()
    if boxed := _BOXED.findall(text):
        text = boxed[-1]
    elif tagged := _TAGGED.findall(text):
        text = " ".join(tagged)
    for lead in _MED_EVAL_LEADS:
        text = text.split(lead)[-1]
    return text


def medevalkit_open(predicted: str, gold: str) -> float:
    """Equality of the lower-case texts, full stops and blanks included."""
    return float(medevalkit_text(predicted) == gold.lower())


def medevalkit_closed(predicted: str, gold: str) -> float:
    """Equality without full stops and line breaks, blanks kept; a lower-case yes or no must be said, and alone."""
    text = medevalkit_text(predicted).replace("\n", "").replace(".", "")
    if gold in YES_NO:
        return float((("yes" in text) != ("no" in text)) and gold in text)
    return float(text == gold.lower())


def medevalkit_repaired(predicted: str, gold: str) -> float:
    """Equality of both texts in lower case without surrounding blanks and full stops."""
    return float(medevalkit_text(predicted).strip(" .\n\t") == gold.lower().strip(" .\n\t"))


def medevalkit_recall(predicted: str, gold: str) -> float:
    """What MedEvalKit reports as F1: the share of the reference's distinct words that the response holds."""
    ours, theirs = set(medevalkit_text(predicted).split()), set(gold.lower().split())
    return len(ours & theirs) / len(theirs) if ours and theirs else 0.0


def medevalkit_f1(predicted: str, gold: str) -> float:
    """F1 of the two sets of words, which MedEvalKit computes and reports as precision."""
    return set_f1(medevalkit_text(predicted).split(), gold.lower().split())


# --- lmms-eval --------------------------------------------------------------------------------------------------------

_ROUND_BRACKETS = re.compile(r"\([^)]*\)|（[^）]*）")
_WIDE_MARKS = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～、《》【】"
_MARKS_TO_BLANKS = str.maketrans(dict.fromkeys(string.punctuation + _WIDE_MARKS, " "))
_YES = frozenset(["yes", "yeah", "yep", "true", "是", "是的", "有", "包含", "可以", "能", "会"])
_NO = frozenset(["no", "nope", "false", "否", "不是", "没有", "无", "不包含", "不能", "不会", "不可以"])
_LMMS_YES = _YES | {"正常"}
_LMMS_NO = _NO | {"不正常", "异常"}


def lmms_equal(predicted: str, gold: str) -> float:
    """Equality after lmms-eval's rule, in which normal is a way to say yes and abnormal to say no."""
    return float(_lmms(predicted, _LMMS_YES, _LMMS_NO) == _lmms(gold, _LMMS_YES, _LMMS_NO))


def lmms_repaired(predicted: str, gold: str) -> float:
    """The same, with normal and abnormal as answers of their own."""
    return float(_lmms(predicted, _YES, _NO) == _lmms(gold, _YES, _NO))


def _lmms(answer: str, yes: frozenset[str], no: frozenset[str]) -> str:
    text = " ".join(_ROUND_BRACKETS.sub(" ", answer.strip().lower()).translate(_MARKS_TO_BLANKS).split())
    text = "xray" if text == "x ray" else text
    return "yes" if text in yes else "no" if text in no else text


# --- MultiMedEval -----------------------------------------------------------------------------------------------------

_ASCII_MARKS_TO_BLANKS = str.maketrans(dict.fromkeys(string.punctuation, " "))


def multimed_words(answer: str) -> list[str]:
    """Lower-case words, punctuation read as blanks."""
    return answer.lower().translate(_ASCII_MARKS_TO_BLANKS).split()


def multimed_closed(predicted: str, gold: str) -> float:
    """Right if at least 0.4 of the reference's words are said; ``not`` stands beside ``no``, so half of them do."""
    ours, theirs = set(multimed_words(predicted)), set(multimed_words(gold))
    theirs |= {"not"} if theirs == {"no"} else set()
    return float(bool(theirs) and len(ours & theirs) / len(theirs) >= 0.4)


def multimed_recall(predicted: str, gold: str) -> float:
    """Share of the reference's distinct words that the prediction holds."""
    theirs = set(multimed_words(gold))
    return len(set(multimed_words(predicted)) & theirs) / len(theirs) if theirs else 0.0


def multimed_open(predicted: str, gold: str) -> float:
    """Right if at least three quarters of the reference's words are said, whatever else is."""
    return float(multimed_recall(predicted, gold) >= 0.75)


def multimed_equal(predicted: str, gold: str) -> float:
    """Equality of the words in order."""
    return float(multimed_words(predicted) == multimed_words(gold))


def multimed_bleu(predicted: str, gold: str) -> float:
    """BLEU-1 of a single answer; 0 where nothing is shared."""
    return sentence_bleu(multimed_words(predicted), multimed_words(gold), 1)


# --- HELM -------------------------------------------------------------------------------------------------------------

_HELM_TOKEN = re.compile(r"[\w'/-]+(?:\.\w+)*|[^\w\s]")
_LETTERS_AND_DIGITS = re.compile(r"[a-z0-9]+")


def first_tokens(text: str) -> str:
    """The first 20 words: HELM lets a model say no more."""
    words = text.split()
    return text if len(words) <= HELM_TOKENS else " ".join(words[:HELM_TOKENS])


def helm_exact(predicted: str, gold: str) -> float:
    """Equality of the texts without surrounding blanks, capitals included."""
    return float(bool(predicted) and first_tokens(predicted).strip() == gold.strip())


def helm_quasi_exact(predicted: str, gold: str) -> float:
    """SQuAD's equality; an empty prediction is wrong whatever the reference."""
    return exact_match(first_tokens(predicted), gold) if predicted else 0.0


def helm_f1(predicted: str, gold: str) -> float:
    """F1 of the two *sets* of SQuAD's words: a word said twice counts once."""
    return set_f1(squad_normalize(first_tokens(predicted)).split(), squad_normalize(gold).split())


def helm_rouge_l(predicted: str, gold: str) -> float:
    """ROUGE-L over letters and digits, without the stemmer; Chinese has no words by this rule and scores 0."""
    ours, theirs = (_LETTERS_AND_DIGITS.findall(text.lower()) for text in (first_tokens(predicted), gold))
    return lcs_f_measure(ours, theirs)


def helm_bleu(order: int) -> Scorer:
    """BLEU with all weight on one n-gram length, capitals kept: 0 for every answer shorter than that."""

    def score(predicted: str, gold: str) -> float:
        return sentence_bleu(_HELM_TOKEN.findall(first_tokens(predicted)), _HELM_TOKEN.findall(gold), order)

    return score


# --- VILA-M3 ----------------------------------------------------------------------------------------------------------


def vila_equal(predicted: str, gold: str) -> float:
    """Equality in lower case without surrounding blanks: a full stop makes an answer wrong."""
    return float(predicted.strip().lower() == gold.strip().lower())


# --- MedVInT ----------------------------------------------------------------------------------------------------------


def nearest_among(labels: Iterable[str]) -> Scorer:
    """Right if the label nearest to the text by difflib's ratio, the first of equals, is the reference; lower case."""
    nearest = NearestLabel([label.lower() for label in labels])
    return lambda predicted, gold: float(nearest.is_nearest(gold.lower(), predicted.lower()))


# --- shared -----------------------------------------------------------------------------------------------------------


def set_f1(ours: Iterable[str], theirs: Iterable[str]) -> float:
    """F1 of two sets of words; 0 where either is empty."""
    mine, gold = set(ours), set(theirs)
    shared = len(mine & gold)
    return 2 * shared / (len(mine) + len(gold)) if shared else 0.0


def _vqa_words(answer: str) -> Counter[str]:
    return Counter(vqa_normalize(answer).split())


def _has_yes_or_no(predicted: str) -> bool:
    text = vqa_normalize(predicted)
    return "yes" in text or "no" in text
