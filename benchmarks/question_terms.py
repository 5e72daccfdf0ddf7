"""What is understood of questions that clinicians asked, and what is listed next to an answer.

`python benchmarks/question_terms.py VQA_RAD_FOLDER [SLAKE_ROOT]` with the shipped model; with `--only-vqa-rad` the
first two measurements alone. The text encoder of the extra `meaning` is used where it is installed.

- Every third of VQA-RAD's training questions on its own picture: answered, refused by cause, and redirected: a question
  is offered that the model answers about the same picture and that concerns the same subject (`subject_relation`): the
  organ or finding that is named, an organ or body part that contains it, or without an organ the same technique.
- Of the answered ones, the fraction that is right, with a 95 % interval that draws whole images.
- SLAKE's English validation questions: EM, coverage and EM of the answered ones before and after, and the fraction of
  listed alternatives that are of another type than the answer to the question.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from measured_model import MEASURED
from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.evaluation.statistics.intervals import clustered_bootstrap
from medical_vqa.models.base import Query
from medical_vqa.models.compact import question_understanding
from medical_vqa.models.compact.answering import CompactAnswering
from medical_vqa.models.compact.question_understanding import QuestionParser
from medical_vqa.models.guards.abstention import abstention_decision, calibrated
from medical_vqa.models.guards.alternatives import YES_NO
from medical_vqa.models.guards.reasons import PICTURE_CODES
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.meaning import PACKAGE
from medical_vqa.models.questions.subjects import Relation, subject_relation
from medical_vqa.models.questions.terms import CanonicalQuestion, medical_terms
from medical_vqa.pipelines.load import LoadedModel, load
from medical_vqa.pipelines.queries import queries as queries_of
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

BATCH = 64
EVERY = 3
"""Every third of VQA-RAD's questions is asked."""


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vqa_rad", type=Path)
    parser.add_argument("root", type=Path, nargs="?", default=default_root())
    parser.add_argument("--only-vqa-rad", action="store_true")
    arguments = parser.parse_args()
    loaded = load(str(MEASURED))
    result = {
        "model": loaded.card.name,
        "files": dict(loaded.card.files),
        "terms": len(medical_terms()),
        "text encoder": importlib.util.find_spec(PACKAGE) is not None,
        "VQA-RAD training questions": vqa_rad(loaded, arguments.vqa_rad),
    }
    if not arguments.only_vqa_rad:
        result["SLAKE validation, English"] = validation(loaded, arguments.root)
    print(json.dumps(result, ensure_ascii=False, indent=1))


def vqa_rad(loaded: LoadedModel, folder: Path) -> dict[str, Any]:
    """Answered, redirected and refused of VQA-RAD's training questions."""
    rows = json.loads((folder / "VQA_RAD Dataset Public.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["phrase_type"] in ("freeform", "para")][::EVERY]
    images = {row["image_name"] for row in rows}
    visuals = {name: visual_of(loaded, folder / "VQA_RAD Image Folder" / name) for name in sorted(images)}
    queries = [
        Query(str(n), row["question"], row["image_name"], visuals[row["image_name"]]) for n, row in enumerate(rows)
    ]
    right: list[tuple[bool, bool, str]] = []
    refused: Counter[str] = Counter()
    redirected: Counter[str] = Counter()
    relations: Counter[str] = Counter()
    offered: Counter[int] = Counter()
    examples: list[list[Any]] = []
    for row, query in zip(rows, queries, strict=True):
        guarded = loaded.guards.answer([query])[0]
        answer, decision = guarded.prediction.answer, guarded.abstention
        if not decision.abstained:
            gold = str(row["answer"])
            right.append((exactly(answer, gold), in_plain_words(loaded, answer, gold), row["image_name"]))
            continue
        cause = CAUSES.get(decision.code or "", "form, premise or type")
        refused[cause] += 1
        offered[len(decision.suggestions)] += cause != "picture"
        found = {subject_relation(query.question, text) for text in decision.suggestions}
        relation = next((name for name in RELATIONS if name in found), None)
        redirected[cause] += relation is not None
        relations[relation or "none"] += 1
        if int(row["qid"]) % 60 == 0:
            examples.append([query.question, decision.reason, relation, list(decision.suggestions)])
    n = len(rows)
    return {
        "questions": n,
        "images": len(images),
        "refused for an unknown word before the table": share(unknown_before(loaded, row["question"]) for row in rows),
        "answered": round(len(right) / n, 4),
        "redirected": round(redirected.total() / n, 4),
        "answered or redirected": round((len(right) + redirected.total()) / n, 4),
        "redirected, by what the offered question is about": {
            name: round(relations[name] / n, 4) for name in RELATIONS
        },
        "refused, by cause": {cause: round(count / n, 4) for cause, count in refused.items()},
        "redirected, by cause": {cause: round(count / n, 4) for cause, count in redirected.items()},
        "refused for an unknown word": round(refused["word"] / n, 4),
        "refused for a term that no question about the same subject is offered for": round(
            (refused["term"] - redirected["term"]) / n, 4
        ),
        "refusals by number of questions offered, pictures that are refused apart": dict(sorted(offered.items())),
        "answered, right by EM": interval_of([(exact, image) for exact, _, image in right]),
        "answered, right after the table of terms (axial = transverse)": interval_of(
            [(plain, image) for _, plain, image in right]
        ),
        "examples": examples,
    }


CAUSES = {
    "unknown_word": "word",
    "unknown_words": "word",
    "unknown_words_and_terms": "word",
    "untrained_term": "term",
    "untrained_terms": "term",
    "low_confidence": "confidence",
    **dict.fromkeys(PICTURE_CODES, "picture"),
}
"""Code of a reason -> why a question is refused: a word that nothing knows, a term that training lacks, the picture."""
RELATIONS: tuple[Relation, ...] = ("same", "container", "technique", "abnormality")


def exactly(answer: str, gold: str) -> bool:
    """Whether two answers are the same after SQuAD's normalization."""
    return squad_normalize(answer) == squad_normalize(gold)


def in_plain_words(loaded: LoadedModel, answer: str, gold: str) -> bool:
    """Whether an answer has the words of the gold answer, or these all of its own, after the table of terms."""
    assert isinstance(loaded.model, CompactAnswering)
    one, other = (
        set(squad_normalize(loaded.model.parser.canonical(text).replace("-", " ")).split()) - {"plane", "image"}
        for text in (answer, gold)
    )
    return bool(one and other) and (one <= other or other <= one)


def interval_of(judged: Sequence[tuple[bool, str]]) -> dict[str, Any]:
    """Fraction right of answered questions, with a bootstrap interval that draws whole images."""
    counts = np.array([[float(right), 1.0] for right, _ in judged])
    interval = clustered_bootstrap(counts, [image for _, image in judged], lambda totals: totals[:, 0] / totals[:, 1])
    right = sum(flag for flag, _ in judged)
    bounds = [None if bound is None else round(bound, 4) for bound in (interval.low, interval.high)]
    return {"right": right, "of": len(judged), "fraction": share(flag for flag, _ in judged), "95 %": bounds}


def unknown_before(loaded: LoadedModel, question: str) -> bool:
    """Whether a question has a word that neither the vocabulary nor the correction of typing errors knows."""
    with without_terms():
        parser = parser_of(loaded)
        fresh = QuestionParser(parser._vocabulary)
        return bool(fresh.unknown_words(question))


def without_terms() -> Any:
    """No table of terms."""
    return patch.object(question_understanding, "canonical_terms", lambda question, known: CanonicalQuestion(question))  # noqa: ARG005


def parser_of(loaded: LoadedModel) -> QuestionParser:
    """The question parser of the compact model."""
    assert isinstance(loaded.model, CompactAnswering)
    return loaded.model.parser


def visual_of(loaded: LoadedModel, path: Path) -> Any:
    """The features of a picture, encoded once."""
    assert loaded.model.picture is not None
    assert loaded.model.vision is not None
    return loaded.model.vision.encode([prepare_picture(decode_image_file(path).image, loaded.model.picture)])[0]


def validation(loaded: LoadedModel, root: Path) -> dict[str, Any]:
    """EM and coverage with and without the table, and what is listed next to the answers."""
    assert loaded.card.data is not None
    data = SelectedDataset.open(loaded.card.data.selection.model_copy(update={"root": root}))
    rows = data.rows("validation")
    queries = encoded(loaded, list(queries_of(data, rows, loaded.model)))
    bank = QuestionBank.from_examples([row for row in data.rows("train") if row.answers])
    with without_terms():
        before = scores(load(str(MEASURED)), rows, queries)
    after = scores(loaded, rows, queries)
    predictions = answers(loaded, queries)
    plain = [calibrated(prediction, loaded.card) for prediction in predictions]
    listed = [guarded.prediction for guarded in loaded.guards.answer(queries)]
    return {
        "questions": len(rows),
        "before": before | {"alternatives": alternatives(rows, plain, bank)},
        "after": after | {"alternatives": alternatives(rows, listed, bank)},
    }


def scores(loaded: LoadedModel, rows: Sequence[Example], queries: Sequence[Query]) -> dict[str, float]:
    """EM of all answers, coverage, and EM of the answers that are shown."""
    predictions = answers(loaded, queries)
    right = [
        squad_normalize(p.answer) in {squad_normalize(answer) for answer in row.answers}
        for row, p in zip(rows, predictions, strict=True)
    ]
    shown = [
        not abstention_decision(loaded.model, loaded.card, query, calibrated(p, loaded.card)).abstained
        for query, p in zip(queries, predictions, strict=True)
    ]
    return {
        "EM": share(right),
        "coverage": share(shown),
        "EM of the answered": share(r for r, s in zip(right, shown, strict=True) if s),
    }


def alternatives(rows: Sequence[Example], predictions: Sequence[Prediction], bank: QuestionBank) -> dict[str, Any]:
    """How many alternatives are listed, and how many of another type, by the rows' published content types."""
    total = other = affected = 0
    of_type: Mapping[str, frozenset[str]] = {
        kind: frozenset(a for q in bank.questions if q.question_type == kind for a in q.answers)
        for kind in {q.question_type for q in bank.questions}
    }
    for row, prediction in zip(rows, predictions, strict=True):
        wrong = [text for text, _ in prediction.alternatives if is_of_another_type(row, text, of_type)]
        total += len(prediction.alternatives)
        other += len(wrong)
        affected += bool(wrong)
    return {
        "listed": total,
        "of another type": round(other / max(1, total), 4),
        "answers with one of another type": round(affected / len(rows), 4),
    }


def is_of_another_type(row: Example, alternative: str, of_type: Mapping[str, frozenset[str]]) -> bool:
    """Whether an alternative cannot answer a row's question, judged by its published content type."""
    text = squad_normalize(alternative)
    if asks_yes_or_no(row.question):
        return text not in YES_NO
    return text in YES_NO or text not in of_type.get(row.facts.get("content_type", ""), frozenset())


def encoded(loaded: LoadedModel, queries: Sequence[Query]) -> list[Query]:
    """The queries with their images encoded once."""
    assert loaded.model.vision is not None
    pictures = {query.image: query.visual for query in queries}
    features = dict(zip(pictures, loaded.model.vision.encode(list(pictures.values())), strict=True))  # type: ignore[arg-type]
    return [dataclasses.replace(query, visual=features[query.image]) for query in queries]


def answers(loaded: LoadedModel, queries: Sequence[Query]) -> list[Prediction]:
    """In batches."""
    batches = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]
    return [prediction for batch in batches for prediction in loaded.model.answer(batch, loaded.card.decoding)]


def share(flags: Iterable[bool]) -> float:
    """Fraction of true ones."""
    values = list(flags)
    return round(sum(values) / max(1, len(values)), 4)


if __name__ == "__main__":
    main()
