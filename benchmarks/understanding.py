"""Questions in a person's own words: does the compact model answer them alike, and does it decline what it cannot know?

`python benchmarks/understanding.py [BUNDLE]`, on SLAKE's English validation split. Three sets:

- rewordings: every validation question that ``rewordings.json`` knows, in words written by hand and apart from the
  training rules, and the same with a typing error (two letters of the longest word swapped);
- strangers: questions that no picture answers, and questions that take an organ for granted that is far from the
  part of the body shown;
- the validation questions themselves: the share that is answered, with the threshold that answers 95 % of them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measured_model import MEASURED, require_unseen
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.pipelines import queries as queries_stage
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.selection import Selection
from medical_vqa.text import squad_normalize
from pointing import rows_of

REWORDINGS = Path(__file__).parents[1] / "src/medical_vqa/models/questions/rewordings.json"
COVERAGE = 0.95  # of the validation questions
FAR = {
    "Head": ("liver", "spleen", "kidney", "stomach", "lung", "heart", "bladder", "rectum"),
    "Chest": ("brain", "temporal lobe", "brain stem", "bladder", "rectum", "femoral head"),
    "Abdomen": ("brain", "temporal lobe", "brain stem"),
    "Pelvis": ("brain", "temporal lobe", "brain stem", "lung", "heart"),
    "Neck": ("liver", "spleen", "kidney", "bladder", "rectum"),
}
GRANTED = (
    "Where is the {}?",
    "Is the {} healthy?",
    "What color is the {} in the picture?",
    "What is the shape of the {}?",
)
ELSEWHERE = (
    "What is the capital of France?", "Who won the world cup in 2018?", "How old is the patient?", "What is your name?",
    "What is the weather like today?", "Can you write a poem about the sea?", "How much does an MRI cost?",
    "Is the patient male or female?", "What time is it?", "Who took this picture?", "When was this scan made?",
    "What does the patient eat for breakfast?", "Is the patient married?", "Translate this into German.",
    "What is two plus two?", "Which hospital was it?", "What medicine did he take yesterday?", "Will it rain tomorrow?",
    "Tell me a joke.", "How tall is the patient?", "What is the blood pressure?", "Does the patient smoke?",
    "Who is the doctor?", "How do I bake bread?", "Which car should I buy?", "What is the price of gold?",
    "Is there a cat in the picture?", "What breed is the dog?", "How many people are in the room?", "Is the sky blue?",
    "Was ist auf dem Bild zu sehen?", "¿Qué órgano es este?", "Quel organe voyez-vous ?", "Где печень?",
    "肝臓はどこですか",
    "What is the meaning of life?", "Is the fracture displaced?", "Which vaccine did the child receive?",
    "What is the phone number of the clinic?", "Sing a song for me", "asdf qwer zxcv", "Who painted this?",
)  # fmt: skip


def main() -> None:
    """Answer all sets and print one JSON object."""
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else MEASURED
    model, card = load_model(find_bundle(bundle), "cpu")
    require_unseen(card)
    data = SelectedDataset.open(Selection(dataset="slake", root=default_root(), where={"language": "en"}))
    rows = data.rows("validation")
    asked = encoded(model, queries_stage.queries(data, rows, model))
    own = answers(model, asked)
    doubts = [model.abstention_reason(q, a) is not None for q, a in zip(asked, own, strict=True)]
    threshold = quantile([a.confidence or 0.0 for a, d in zip(own, doubts, strict=True) if not d], doubts)
    found: dict[str, Any] = {"model": card.name, "files": dict(card.files), "questions": len(rows)}
    found["threshold"] = threshold
    found["validation answered"] = share(not declined(d, a, threshold) for d, a in zip(doubts, own, strict=True))
    found["validation doubted"] = share(doubts)
    found["rewordings"] = agreement(model, rows, asked, own, threshold, typing_error=False)
    found["rewordings with a typing error"] = agreement(model, rows, asked, own, threshold, typing_error=True)
    found |= strangers(model, rows, asked, threshold)
    found["Chinese"] = chinese(model, data)
    found["VQA-RAD's rewordings"] = vqa_rad(model, threshold)
    print(json.dumps(found, ensure_ascii=False, indent=1))


def encoded(model: Any, queries: Iterable[Query]) -> list[Query]:
    """The queries with their images encoded once."""
    rows = list(queries)
    pictures = {query.image: query.visual for query in rows}
    tokens = dict(zip(pictures, model.vision.encode(list(pictures.values())), strict=True))
    return [dataclasses.replace(query, visual=tokens[query.image]) for query in rows]


def answers(model: Any, queries: Sequence[Query]) -> list[Prediction]:
    """In batches."""
    batches = [queries[start : start + 64] for start in range(0, len(queries), 64)]
    return [answer for batch in batches for answer in model.answer(batch, Decoding())]


def agreement(
    model: Any, rows: Sequence[Example], asked: Sequence[Query], own: Sequence[Prediction], threshold: float, *,
    typing_error: bool,
) -> dict[str, Any]:  # fmt: skip
    """How often a reworded question gets the answer of the original one."""
    wordings: dict[str, list[str]] = json.loads(REWORDINGS.read_text(encoding="utf-8"))
    pairs = [
        (dataclasses.replace(query, question=swapped(words) if typing_error else words), answer, example)
        for query, answer, example in zip(asked, own, rows, strict=True)
        for words in wordings.get(query.question, [])
    ]
    given = answers(model, [query for query, _, _ in pairs])
    same = [squad_normalize(a.answer) == squad_normalize(o.answer) for a, (_, o, _) in zip(given, pairs, strict=True)]
    right = [
        squad_normalize(a.answer) == squad_normalize(e.answers[0]) for a, (_, _, e) in zip(given, pairs, strict=True)
    ]
    was = [squad_normalize(o.answer) == squad_normalize(e.answers[0]) for _, o, e in pairs]
    kept = [
        not declined(model.abstention_reason(q, a) is not None, a, threshold)
        for a, (q, _, _) in zip(given, pairs, strict=True)
    ]
    return {
        "pairs": len(pairs),
        "wordings": len({query.question for query, _, _ in pairs}),
        "images": len({query.image for query, _, _ in pairs}),
        "same answer": share(same),
        "answered": share(kept),
        "same answer where answered": share(s for s, k in zip(same, kept, strict=True) if k),
        "EM of the originals": share(was),
        "EM of the rewordings": share(right),
        "worst": worst(pairs, same),
    }


def chinese(model: Any, data: SelectedDataset) -> dict[str, Any]:
    """EM on Chinese rows about images of the English validation split, from which nothing was learned."""
    rows = rows_of(data, "zh")
    given = answers(model, encoded(model, queries_stage.queries(data, rows, model)))
    right = [squad_normalize(a.answer) == squad_normalize(r.answers[0]) for a, r in zip(given, rows, strict=True)]
    return {"questions": len(rows), "images": len({row.image_id for row in rows}), "EM": share(right)}


def vqa_rad(model: Any, threshold: float) -> dict[str, Any]:
    """VQA-RAD's rewordings of its own training questions, asked of a model that never saw them or their images."""
    data = SelectedDataset.open(Selection(dataset="vqa-rad", root=default_root()))
    rows = data.rows("train")
    pairs: dict[str, dict[str, Example]] = {}
    for row in rows:
        pairs.setdefault(f"{row.facts.get('pair')} {row.image_id}", {})[row.facts["phrase_type"]] = row
    both = [pair for pair in pairs.values() if {"freeform", "para"} <= pair.keys()]
    asked = [pair[kind] for pair in both for kind in ("freeform", "para")]
    queries = encoded(model, queries_stage.queries(data, asked, model))
    given = answers(model, queries)
    kept = [
        not declined(model.abstention_reason(q, a) is not None, a, threshold)
        for q, a in zip(queries, given, strict=True)
    ]
    same = [one.answer == other.answer for one, other in zip(given[::2], given[1::2], strict=True)]
    both_kept = [one and other for one, other in zip(kept[::2], kept[1::2], strict=True)]
    return {
        "pairs": len(both),
        "answered, of the questions": share(kept),
        "same answer": share(same),
        "same answer where both are answered": share(s for s, k in zip(same, both_kept, strict=True) if k),
        "pairs both answered": sum(both_kept),
    }


def worst(pairs: Sequence[tuple[Query, Prediction, Example]], same: Sequence[bool]) -> list[list[Any]]:
    """The ten wordings that change the answer most often: [wording, changed, asked]."""
    tallies: dict[str, list[int]] = {}
    for (query, _, _), alike in zip(pairs, same, strict=True):
        tally = tallies.setdefault(query.question, [0, 0])
        tally[0] += not alike
        tally[1] += 1
    ranked = sorted(tallies.items(), key=lambda item: -item[1][0])
    return [[words, *tally] for words, tally in ranked[:10] if tally[0]]


def swapped(question: str) -> str:
    """The question with the two middle letters of its longest word swapped."""
    longest = max(question.rstrip("?").split(), key=len).strip(",:")
    middle = len(longest) // 2
    typed = longest[: middle - 1] + longest[middle] + longest[middle - 1] + longest[middle + 1 :]
    return question.replace(longest, typed, 1)


def strangers(model: Any, rows: Sequence[Example], asked: Sequence[Query], threshold: float) -> dict[str, Any]:
    """How often questions from outside are declined."""
    images = {query.image: (query, example) for query, example in zip(asked, rows, strict=True)}
    firsts = [query for query, _ in images.values()]
    elsewhere = [
        dataclasses.replace(firsts[(7 * number + turn) % len(firsts)], question=question)
        for number, question in enumerate(ELSEWHERE)
        for turn in range(3)
    ]
    organs = [
        dataclasses.replace(query, question=GRANTED[(number + place) % len(GRANTED)].format(organ))
        for number, (query, example) in enumerate(images.values())
        for place, organ in enumerate(FAR.get(example.facts.get("organ", ""), ()))
    ]
    return {
        "not about the picture": refused(model, elsewhere, threshold),
        "another organ": refused(model, organs, threshold),
    }


def refused(model: Any, queries: Sequence[Query], threshold: float) -> dict[str, Any]:
    """How many are declined, and some that are not."""
    given = answers(model, queries)
    no = [
        declined(model.abstention_reason(q, a) is not None, a, threshold) for q, a in zip(queries, given, strict=True)
    ]
    missed = {f"{q.question} -> {a.answer}" for q, a, n in zip(queries, given, no, strict=True) if not n}
    return {"questions": len(queries), "declined": share(no), "answered": sorted(missed)[:10]}


def declined(doubted: bool, answer: Prediction, threshold: float) -> bool:
    """As `models.abstention.verdict` decides, with this threshold of the bare confidence."""
    return doubted or (answer.confidence or 0.0) < threshold


def quantile(confidences: Sequence[float], doubts: Sequence[bool]) -> float:
    """The confidence above which `COVERAGE` of all validation questions are answered."""
    spare = max(0, int(len(doubts) * (1 - COVERAGE)) - sum(doubts))
    return sorted(confidences)[spare]


def share(flags: Iterable[bool]) -> float:
    """Share of true ones."""
    values = list(flags)
    return round(sum(values) / max(1, len(values)), 4)


if __name__ == "__main__":
    main()
