"""What is understood of questions that clinicians asked, and what is listed next to an answer.

`python benchmarks/question_terms.py VQA_RAD_FOLDER [SLAKE_ROOT]` with the shipped model. Three measurements:

- Every third of VQA-RAD's training questions on its own picture: answered, refused by cause, and of these the ones with
  questions offered that the model answers about the same picture; before (without the table of terms) and after.
- Of the answered ones, the fraction that is right, with its 95 % Wilson interval.
- SLAKE's English validation questions: EM, coverage and EM of the answered ones before and after, and the fraction of
  listed alternatives that are of another type than the answer to the question.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.models.compact import question_understanding
from medical_vqa.models.compact.answering import CompactAnswering
from medical_vqa.models.compact.question_understanding import QuestionParser
from medical_vqa.models.guards.abstention import abstention_decision, calibrated
from medical_vqa.models.guards.alternatives import YES_NO
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.questions.form import asks_yes_or_no
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
    folder = Path(sys.argv[1])
    root = Path(sys.argv[2]) if len(sys.argv) > 2 else default_root()
    loaded = load("shipped")
    result = {
        "model": loaded.card.name,
        "files": dict(loaded.card.files),
        "terms": len(medical_terms()),
        "VQA-RAD training questions": vqa_rad(loaded, folder),
        "SLAKE validation, English": validation(loaded, root),
    }
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
    answered, right, offered, outcomes = 0, 0, 0, dict.fromkeys(("word", "term", "form or entity", "confidence"), 0)
    redirected = dict.fromkeys(outcomes, 0)
    examples: list[list[Any]] = []
    for row, query, guarded in zip(rows, queries, loaded.guards.answer(queries), strict=True):
        answer, decision = guarded.prediction, guarded.abstention
        if not decision.abstained:
            answered += 1
            right += squad_normalize(answer.answer) == squad_normalize(str(row["answer"]))
            continue
        cause = cause_of(loaded, query)
        outcomes[cause] += 1
        redirected[cause] += bool(decision.suggestions)
        offered += len(decision.suggestions)
        if int(row["qid"]) % 60 == 0:
            examples.append([query.question, decision.reason, list(decision.suggestions)])
    n = len(rows)
    refused = sum(outcomes.values())
    return {
        "questions": n,
        "images": len(images),
        "refused for an unknown word before": share(unknown_before(loaded, row["question"]) for row in rows),
        "answered": round(answered / n, 4),
        "answered, right by EM": [right, answered, *wilson(right, answered)],
        "refused, by cause": {cause: round(count / n, 4) for cause, count in outcomes.items()},
        "redirected, by cause": {cause: round(count / n, 4) for cause, count in redirected.items()},
        "answered or redirected": round((answered + sum(redirected.values())) / n, 4),
        "refused for a word or term that no question is offered for": round(
            sum(outcomes[c] - redirected[c] for c in ("word", "term")) / n, 4
        ),
        "questions offered per refusal": round(offered / max(1, refused), 2),
        "examples": examples,
    }


def cause_of(loaded: LoadedModel, query: Query) -> str:
    """Why a question is refused: a word that nothing knows, a term of the table, its form or entity, confidence."""
    parser = parser_of(loaded)
    if parser.unknown_words(query.question):
        return "word"
    if parser.terms_outside(query.question):
        return "term"
    reason = loaded.model.abstention_reason(query, Prediction("", ""))
    return "confidence" if reason is None else "form or entity"


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
        before = scores(load("shipped"), rows, queries)
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


def wilson(successes: int, trials: int, z: float = 1.96) -> list[float]:
    """Fraction with its 95 % interval (Wilson 1927)."""
    if not trials:
        return [0.0, 0.0, 1.0]
    p, n = successes / trials, trials
    center, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return [round(value, 4) for value in (p, (center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n))]


def share(flags: Iterable[bool]) -> float:
    """Fraction of true ones."""
    values = list(flags)
    return round(sum(values) / max(1, len(values)), 4)


if __name__ == "__main__":
    main()
