"""The scoring rules behind published numbers, each with its citation; numbers compare only under one rule.

Every rule stands here twice: *as published*, its defects included, which is what a published number has to be compared
with, and *repaired*. What a scorer cannot see (which rows were trained on, which epoch was chosen) is said in `beyond`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.metrics.answer_metrics import (
    ExactMatch,
    Mean,
    Metric,
    TokenF1,
    answer_type,
    scored_answers,
    token_f1,
)
from medical_vqa.evaluation.metrics.overlap import Bleu
from medical_vqa.evaluation.protocols import scorers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import did_you_mean, vqa_normalize

Judge = Callable[[str, str], float | None]
Rows = Callable[[Example], bool]


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may ask about beside one answer and its reference."""

    train: Sequence[Example] = ()
    """Training rows: where a repaired rule takes its labels from."""
    rows: Sequence[Example] = ()
    """The rows that are scored: where some published rules take theirs from."""


@dataclass(frozen=True, slots=True)
class Line:
    """One number of a protocol."""

    published: Metric
    """As its authors compute it."""
    repaired: Metric | None
    """With the defect mended; None where it cannot be computed here."""
    changes: str = ""
    """What the defect changes, in one sentence; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named rule: which metrics, and where the rule was published."""

    name: str
    """The name on the command line: ``squad_v2``."""
    rule: str
    """What it does to an answer, in one sentence."""
    citation: str
    """Where the rule was published."""
    lines: Callable[[Context], tuple[Line, ...]]
    """The numbers it gives; the first one is the headline."""
    beyond: str = ""
    """What sets its published numbers apart that no scorer sees; empty where there is nothing."""

    def metrics(self, context: Context | None = None) -> tuple[Metric, ...]:
        """The numbers as published."""
        return tuple(line.published for line in self.lines(context or Context()))


def protocol_names() -> list[str]:
    """Every protocol, the house's own first."""
    return [protocol.name for protocol in _PROTOCOLS]


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; raises `ConfigError` that names the nearest known one."""
    known = {protocol.name: protocol for protocol in _PROTOCOLS}
    if name not in known:
        raise ConfigError(f"unknown protocol {name!r}; {did_you_mean(name, sorted(known))}")
    return known[name]


# --- how a line is made -----------------------------------------------------------------------------------------------


def _mean(name: str, label: str, judge: Judge, rows: Rows | None = None) -> Mean:
    """The best score over the accepted answers, on some rows; the rule's name is the judge's."""

    @lru_cache(maxsize=1 << 16)  # the same pair of answers comes often
    def best(said: str, answers: tuple[str, ...]) -> float | None:
        found = [judge(said, answer) for answer in scored_answers(answers)]
        return max((one for one in found if one is not None), default=None)

    def score(prediction: Prediction, example: Example) -> float | None:
        return best(prediction.answer, example.answers) if rows is None or rows(example) else None

    over = rows.__name__.strip("_") if rows else "all"
    return Mean(name, label, f"{judge.__name__}|rows:{over}|answers:max|v:1", score)


def _open(example: Example) -> bool:
    return answer_type(example) == "OPEN"


def _closed(example: Example) -> bool:
    return answer_type(example) == "CLOSED"


def _yes_no(example: Example) -> bool:
    return any(answer.strip().lower() in scorers.YES_NO for answer in example.answers)


def _other_than_yes_no(example: Example) -> bool:
    return not _yes_no(example)


def _by_type(published: Judge, repaired: Judge, changes: str = "") -> tuple[Line, ...]:
    """Overall, open and closed under one judge."""
    parts: tuple[tuple[str, Rows | None], ...] = (("overall", None), ("open", _open), ("closed", _closed))
    return tuple(
        Line(_mean(name, name, published, rows), _mean(name, name, repaired, rows), changes) for name, rows in parts
    )


# --- the protocols ----------------------------------------------------------------------------------------------------


def _squad(_: Context) -> tuple[Line, ...]:
    lists = "A list in another order (Heart, Liver for Liver, Heart) counts as wrong; repaired, any order is right."
    f1 = TokenF1()
    return Line(ExactMatch(), _mean("em", "EM", scorers.squad_or_list), lists), Line(f1, f1)


def _llava_med(_: Context) -> tuple[Line, ...]:
    recall, exact, closed = scorers.clipped_recall, scorers.vqa_equal, scorers.says
    return (
        Line(
            _mean("open_recall", "open (recall)", scorers.llava_recall, _open),
            _mean("open_recall", "open (recall)", recall, _open),
            "A shared word counts as often as the prediction repeats it; and long answers are not penalized at all.",
        ),
        Line(
            _mean("open_exact", "open (exact match)", scorers.llava_exact, _open),
            _mean("open_exact", "open (exact match)", exact, _open),
            "What is called exact match is the precision of words; repaired, it is equality.",
        ),
        Line(
            _mean("closed", "closed (run_eval.py)", scorers.llava_closed, _closed),
            _mean("closed", "closed (run_eval.py)", closed, _closed),
            "The reference need only be a part of the text (no is in normal; saying yes and no is always right), and "
            "an answer without the letters yes or no is wrong: closed questions with another answer always fail.",
        ),
        Line(
            _mean("closed_batch", "closed (run_eval_batch.py)", scorers.llava_closed_batch, _closed),
            _mean("closed_batch", "closed (run_eval_batch.py)", closed, _closed),
            "The reference need only be a part of the text: saying yes and no is always right.",
        ),
        Line(
            _mean("closed_early", "closed (early run_eval.py)", scorers.llava_closed_unless_wrong, _closed),
            _mean("closed_early", "closed (early run_eval.py)", closed, _closed),
            "Wrong answers that say yes or no are left out of the denominator.",
        ),
    )


def _medevalkit(_: Context) -> tuple[Line, ...]:
    strip = "Blanks and (open) full stops are kept: 'The answer is X.' becomes ' x' and is never right."

    def overall(prediction: Prediction, example: Example) -> float:
        judge = scorers.medevalkit_open if _open(example) else scorers.medevalkit_closed
        return max(judge(prediction.answer, answer) for answer in scored_answers(example.answers))

    return (
        Line(
            Mean("overall", "total", "medevalkit_open+medevalkit_closed|rows:all|answers:max|v:1", overall),
            _mean("overall", "total", scorers.medevalkit_repaired),
            strip,
        ),
        Line(
            _mean("open", "open (em)", scorers.medevalkit_open, _open),
            _mean("open", "open (em)", scorers.medevalkit_repaired, _open),
            strip,
        ),
        Line(
            _mean("closed", "closed", scorers.medevalkit_closed, _closed),
            _mean("closed", "closed", scorers.medevalkit_repaired, _closed),
            strip,
        ),
        Line(
            _mean("f1", "open (f1)", scorers.medevalkit_recall, _open),
            _mean("f1", "open (f1)", scorers.medevalkit_f1, _open),
            "Three results are unpacked in the wrong order: what is reported as F1 is recall.",
        ),
    )


def _lmms_eval(_: Context) -> tuple[Line, ...]:
    changes = (
        "In Chinese, normal (正常) counts as yes and abnormal (异常) as no; repaired, they are answers of their own."
    )
    return _by_type(scorers.lmms_equal, scorers.lmms_repaired, changes)


def _m2i2(_: Context) -> tuple[Line, ...]:
    return _by_type(scorers.vqa_equal, scorers.vqa_equal)


def _mevf(_: Context) -> tuple[Line, ...]:
    def freeform(example: Example) -> bool:
        return example.facts.get("phrase_type", "") in ("freeform", "test_freeform")

    def freeform_open(example: Example) -> bool:
        return freeform(example) and _open(example)

    def freeform_closed(example: Example) -> bool:
        return freeform(example) and _closed(example)

    changes = "Only rows whose phrase_type is freeform are scored; repaired, all are."
    rows = (("overall", freeform, None), ("open", freeform_open, _open), ("closed", freeform_closed, _closed))
    return tuple(
        Line(_mean(name, name, scorers.vqa_equal, some), _mean(name, name, scorers.vqa_equal, every), changes)
        for name, some, every in rows
    )


def _qcr(context: Context) -> tuple[Line, ...]:
    changes = (
        "Rows are counted as open or closed by what the model took them for; repaired, by what the dataset says. "
        "A model that takes hard closed questions for open ones gains on both."
    )
    labels = {vqa_normalize(a) for example in context.train if _closed(example) for a in example.answers}
    labels |= scorers.YES_NO

    def taken_for(kind: str, *, closed: bool) -> Mean:
        def judge(prediction: Prediction, example: Example) -> float | None:
            if (vqa_normalize(prediction.answer) in labels) != closed:
                return None
            return max(scorers.vqa_equal(prediction.answer, answer) for answer in scored_answers(example.answers))

        return Mean(kind, kind, f"vqa_equal|rows:answered with a {kind} label|labels:{len(labels)}|v:1", judge)

    overall = _mean("overall", "overall", scorers.vqa_equal)
    return (
        Line(overall, overall),
        Line(taken_for("open", closed=False), _mean("open", "open", scorers.vqa_equal, _open), changes),
        Line(taken_for("closed", closed=True), _mean("closed", "closed", scorers.vqa_equal, _closed), changes),
    )


def _medvint(context: Context) -> tuple[Line, ...]:
    changes = "The answer is replaced by the nearest label of the test set; repaired, of the training set."

    def nearest(name: str, source: Sequence[Example], rows: Rows, whose: str) -> Mean:
        judge = scorers.nearest_among(answer for example in source if rows(example) for answer in example.answers)

        def score(prediction: Prediction, example: Example) -> float | None:
            return max(judge(prediction.answer, a) for a in example.answers) if rows(example) else None

        return Mean(name, name, f"nearest label|labels:{whose}|ratio:difflib|rows:{name}|v:1", score)

    return tuple(
        Line(
            nearest(name, context.rows, rows, "scored rows"),
            nearest(name, context.train, rows, "training rows") if context.train else None,
            changes,
        )
        for name, rows in (("open", _open), ("closed", _closed))
    )


def _multimedeval(_: Context) -> tuple[Line, ...]:
    recall = _mean("open_recall", "open (recall)", scorers.multimed_recall, _other_than_yes_no)
    bleu = _mean("bleu1", "BLEU-1", scorers.multimed_bleu)
    return (
        Line(
            _mean("closed", "closed (yes/no)", scorers.multimed_closed, _yes_no),
            _mean("closed", "closed (yes/no)", scorers.says, _yes_no),
            "Saying yes and no is always right, and 'not' stands for no; closed are only the yes/no questions.",
        ),
        Line(
            _mean("open", "open (recall at least 0.75)", scorers.multimed_open, _other_than_yes_no),
            _mean("open", "open (recall at least 0.75)", scorers.multimed_equal, _other_than_yes_no),
            "Any text that holds three quarters of the reference's words is right; repaired, the words must be equal.",
        ),
        Line(recall, recall),
        Line(bleu, Bleu(1), "The mean of single answers' BLEU; repaired, BLEU of the corpus, as it was defined."),
    )


def _helm(_: Context) -> tuple[Line, ...]:
    quasi, rouge = _mean("quasi_exact", "quasi-exact", scorers.helm_quasi_exact), scorers.helm_rouge_l
    short = "Answers shorter than four words score 0 even when they are right; repaired, BLEU of the corpus."
    return (
        Line(
            _mean("exact", "exact", scorers.helm_exact),
            _mean("exact", "exact", scorers.vila_equal),
            "Capitals count; repaired, they do not.",
        ),
        Line(quasi, quasi),
        Line(
            _mean("f1", "F1", scorers.helm_f1),
            _mean("f1", "F1", token_f1),
            "A word said several times counts once; repaired, as often as it is said.",
        ),
        Line(_mean("rouge_l", "ROUGE-L", rouge), _mean("rouge_l", "ROUGE-L", rouge)),
        Line(_mean("bleu1", "BLEU-1", scorers.helm_bleu(1)), Bleu(1), "The mean of single answers, capitals kept."),
        Line(_mean("bleu4", "BLEU-4", scorers.helm_bleu(4)), Bleu(4), short),
    )


def _vila_m3(_: Context) -> tuple[Line, ...]:
    changes = "A full stop makes an answer wrong, and rows without a prediction are wrong (here they are set aside)."
    return (
        Line(
            _mean("overall", "accuracy", scorers.vila_equal), _mean("overall", "accuracy", scorers.vqa_equal), changes
        ),
    )


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
        lines=_squad,
    ),
    Protocol(
        name="llava_med",
        rule="VQA normalizer; open questions by the recall of words, closed by containment of the reference.",
        citation="microsoft/LLaVA-Med v1.0.0, llava/eval/run_eval.py, run_eval_batch.py, eval_metrics/",
        lines=_llava_med,
    ),
    Protocol(
        name="medevalkit",
        rule="Lower case, the part after a lead-in such as 'answer is'; equality, full stops dropped if closed.",
        citation="alibaba-damo-academy/MedEvalKit, utils/SLAKE/SLAKE.py and utils/utils.py",
        lines=_medevalkit,
        beyond="Published numbers are in both languages and add what a large language model judged right.",
    ),
    Protocol(
        name="lmms_eval",
        rule="Lower case, (...) dropped, punctuation to blanks, synonyms of yes and no made one; equality.",
        citation="EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/slake/utils.py",
        lines=_lmms_eval,
    ),
    Protocol(
        name="m2i2",
        rule="VQA normalizer; equality. MUMC uses the same.",
        citation="pengfeiliHEU/M2I2, vqaTools/vqaEval.py; pengfeiliHEU/MUMC, vqaEvaluate.py",
        lines=_m2i2,
        beyond=(
            "Answers were ranked over a closed list, M2I2 was trained on train and validation, and both score every "
            "epoch on the test split: the best of them is what is reported."
        ),
    ),
    Protocol(
        name="mevf",
        rule="VQA normalizer; equality of labels, on the freeform rows of VQA-RAD only.",
        citation="aioz-ai/MICCAI19-MedVQA, test.py (Nguyen et al., MICCAI 2019)",
        lines=_mevf,
        beyond="The copy of VQA-RAD it uses has other rows (3,064 train; 308 of 451 test rows are freeform).",
    ),
    Protocol(
        name="qcr",
        rule="VQA normalizer; equality of labels, over the rows that the model took for open or closed.",
        citation="Awenbocc/med-vqa, train.py (Zhan et al., ACM MM 2020)",
        lines=_qcr,
        beyond="Its question classifier is not in a predictions file: a row counts as closed if its answer is a label "
        "of closed training questions.",
    ),
    Protocol(
        name="medvint",
        rule="The answer is replaced by the most similar label (difflib ratio), then compared.",
        citation="xiaoman-zhang/PMC-VQA, src/MedVInT_TD/test.py and issue 15",
        lines=_medvint,
    ),
    Protocol(
        name="multimedeval",
        rule="Punctuation to blanks, lower case; closed right at 0.4 of the words, open at 0.75; BLEU-1.",
        citation="corentin-ryr/MultiMedEval, multimedeval/task_families.py (class VQA)",
        lines=_multimedeval,
    ),
    Protocol(
        name="helm",
        rule="Exact, quasi-exact (SQuAD), F1 of word sets, ROUGE-L, BLEU-1 and BLEU-4 on at most 20 words.",
        citation="stanford-crfm/helm, evaluate_reference_metrics.py and vqa_rad_scenario.py",
        lines=_helm,
        beyond="HELM stems words for ROUGE-L and cuts tokens of its model, here whole words are compared and cut.",
    ),
    Protocol(
        name="vila_m3",
        rule="Lower case, no surrounding blanks; equality; one accuracy over all rows.",
        citation="Project-MONAI/VLM-Radiology-Agent-Framework, m3/eval/scripts/metric_slakevqa.py",
        lines=_vila_m3,
        beyond="Published numbers come from models trained on train and validation.",
    ),
)
