"""What the guards of the shipped model let pass: `python benchmarks/guards.py [ROOT] [PACKAGES]`.

- SLAKE's English validation questions: the fraction that is answered, how many of those are right, the same of
  questions for findings, the reasons for the others, and the radiology pictures that the picture guard refuses. The
  thresholds were chosen on the same rows by `medical-vqa calibrate`, so these figures are of the data that chose them;
  the picture guard was fitted on training pictures alone.
- Questions for findings on every validation picture: of those whose answer is the same for every picture of a modality,
  the fraction that is shown.
- Pairs of a question and its opposite, and of two wordings, by rules: pairs that are both shown and exclude each other.
- Pictures that are no radiology pictures (`non_radiology.py`): the fraction that is answered. PACKAGES is the folder
  with scikit-image, scikit-learn and matplotlib.
- Time per question with the guards and without, one question after the other, both in this process.

ROOT has SLAKE, prepared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measured_model import MEASURED, require_unseen
from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.evaluation.probing.questions import opposite_pairs
from medical_vqa.evaluation.statistics.intervals import wilson
from medical_vqa.models.base import Query
from medical_vqa.models.guards.contradiction import disagreement, related_questions
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.guarded_answer import GuardedAnswer
from medical_vqa.models.guards.reasons import PICTURE_CODES
from medical_vqa.models.guards.reliability import is_right
from medical_vqa.pipelines.load import LoadedModel, load
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection
from non_radiology import pictures

BATCH = 32
TIMED = 120
QUESTIONS = (
    "What modality is this image?",
    "Is there a tumor?",
    "Is the lung healthy?",
    "Does the picture contain lung?",
)
FINDINGS = (
    "Does this patient have pneumonia?", "Is there cardiomegaly?", "Is the heart enlarged?", "Is there a pneumothorax?",
    "Is there a pleural effusion?", "Is there a tumor?", "Is there a nodule?", "Is there atelectasis?",
    "Is there a mass?", "Is the lung healthy?", "Is the liver healthy?", "Is the brain healthy?",
    "Does the lung look abnormal?", "Is the liver normal?",
    "Are there abnormalities in this image?", "Does this image look normal?",
    "病人有肺炎吗?", "肺是健康的吗?", "肝脏是健康的吗?", "图中存在异常吗?",
)  # fmt: skip

WORDED = ("Is the liver normal?", "Is there pneumonia?", "Is the heart enlarged?", "肺是健康的吗?", "肝脏正常吗?")
"""Claims whose wordings are compared on every picture, in addition to those of its own questions."""


def main() -> None:
    """Ask everything once, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=default_root())
    parser.add_argument("packages", type=Path, nargs="?")
    parser.add_argument("--model", default=str(MEASURED))
    parser.add_argument("--only", default="", help="Parts to measure, with commas; all by default.")
    arguments = parser.parse_args()
    loaded = load(arguments.model)
    data = SelectedDataset.open(Selection(dataset="slake", root=arguments.root, where={"language": "en"}))
    rows = data.rows("validation")
    texts = list(queries(data, rows, loaded.model))
    visuals = {row.image_id: query.visual for row, query in zip(rows, texts, strict=True)}
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "validation": lambda: summary(loaded, rows, guarded(loaded, texts)),
        "pairs": lambda: pairs(loaded, rows, visuals),
        "not radiology": lambda: not_radiology(loaded, arguments.packages),
        "findings": lambda: constant_findings(loaded, rows, visuals),
        "time": lambda: times(loaded, texts),
    }
    names = arguments.only.split(",") if arguments.only else list(parts)
    if set(names) & {"validation", "pairs", "findings"}:
        require_unseen(loaded.card)
    figures: dict[str, object] = {"model": loaded.card.name, "files": dict(loaded.card.files)}
    for name in names:
        figures[name] = parts[name]()
        print(name, json.dumps(figures[name], ensure_ascii=False), file=sys.stderr, flush=True)
    json.dump(figures, sys.stdout, indent=1, ensure_ascii=False)


def guarded(loaded: LoadedModel, texts: list[Query]) -> list[GuardedAnswer]:
    """Answers with decisions, in batches."""
    answers: list[GuardedAnswer] = []
    for start in range(0, len(texts), BATCH):
        answers += loaded.guards.answer(texts[start : start + BATCH], suggest=False)
    return answers


def summary(loaded: LoadedModel, rows: list[Example], answers: list[GuardedAnswer]) -> dict[str, object]:
    """Coverage, exact match of what is answered, and the reasons for the rest."""
    reference = loaded.guards.reference
    answered = list(zip(rows, answers, strict=True))
    shown = [(row, answer) for row, answer in answered if not answer.abstention.abstained]
    findings = [(row, answer) for row, answer in shown if reference and reference.asks_for_finding(row.question)]
    of_findings = [row for row in rows if reference and reference.asks_for_finding(row.question)]
    refused = {row.image_id for row, a in answered if a.abstention.code in PICTURE_CODES}
    right = sum(is_right(answer.prediction, row) for row, answer in findings)
    return {
        "questions": len(rows),
        "answered": round(len(shown) / len(rows), 4),
        "em of the answered": exact_match(shown),
        "em of all": exact_match(answered),
        "finding questions": len(of_findings),
        "finding questions answered": len(findings),
        "em of the answered finding questions": exact_match(findings),
        "its 95 % interval": rounded(wilson(right, len(findings))),
        "reasons": dict(Counter(answer.abstention.code or "answered" for answer in answers)),
        "sources of the answered": dict(Counter(answer.source or "not measured" for _, answer in shown)),
        "pictures": len({row.image_id for row in rows}),
        "pictures refused": len(refused),
        "pictures refused, which": sorted(refused),
    }


def exact_match(pairs_: list[tuple[Example, GuardedAnswer]]) -> float | None:
    """Fraction of answers that are right, under SQuAD's normalization; None for no answers."""
    right = [is_right(answer.prediction, row) for row, answer in pairs_]
    return round(sum(right) / len(right), 4) if right else None


def rounded(interval: Any) -> list[float] | None:
    """The bounds of an interval."""
    return None if interval.low is None else [round(interval.low, 4), round(interval.high, 4)]


def constant_findings(loaded: LoadedModel, rows: list[Example], visuals: dict[str, Any]) -> dict[str, object]:
    """Questions for findings on every picture: what is shown where all pictures of a modality get one answer."""
    modality = {row.image_id: row.facts["modality"] for row in rows}
    texts = [Query(f"{i}/{q}", q, i, visual) for i, visual in visuals.items() for q in FINDINGS]
    answers: dict[tuple[str, str], list[GuardedAnswer]] = defaultdict(list)
    for query, answer in zip(texts, guarded(loaded, texts), strict=True):
        answers[query.question, modality[query.image]].append(answer)
    same = {key: group for key, group in answers.items() if len({a.prediction.answer for a in group}) == 1}
    shown = {key: sum(not a.abstention.abstained for a in group) for key, group in answers.items()}
    n_same = sum(map(len, same.values()))
    return {
        "questions asked": len(texts),
        "fraction shown": round(sum(shown.values()) / len(texts), 4),
        "question and modality with one answer for every picture": f"{len(same)} of {len(answers)}",
        "answers to those": n_same,
        "of these shown": round(sum(shown[key] for key in same) / max(1, n_same), 4),
        "of these shown, by modality": {
            name: f"{sum(shown[key] for key in same if key[1] == name)} of "
            f"{sum(len(group) for key, group in same.items() if key[1] == name)}"
            for name in sorted(set(modality.values()))
        },
        "shown": {" / ".join(key): shown[key] for key in sorted(same) if shown[key]},
    }


def pairs(loaded: LoadedModel, rows: list[Example], visuals: dict[str, Any]) -> dict[str, object]:
    """Pairs by rules over the pictures that are both shown, and those of them that exclude each other."""
    wordings: dict[str, list[tuple[str, str]]] = {
        image: [*of_image, *((q, other) for q in WORDED for other in related_questions(q))]
        for image, of_image in opposite_pairs(rows).items()
    }
    texts = {
        (image, text): Query(f"{image}/{text}", text, image, visuals[image])
        for image, of_image in wordings.items()
        for text in dict.fromkeys(text for pair in of_image for text in pair)
    }
    answers = dict(zip(texts, guarded(loaded, list(texts.values())), strict=True))
    counts: Counter[str] = Counter()
    for image, of_image in wordings.items():
        for first, second in dict.fromkeys(of_image):
            one, other = answers[image, first], answers[image, second]
            excluded = disagreement(first, one.prediction.answer, second, other.prediction.answer) is not None
            shown = not one.abstention.abstained and not other.abstention.abstained
            counts.update(pairs=1, contradictory=excluded, shown=shown, contradictory_and_shown=excluded and shown)
    return {
        **dict(counts),
        "contradictory before": round(counts["contradictory"] / counts["pairs"], 4),
        "contradictory and shown": round(counts["contradictory_and_shown"] / counts["pairs"], 4),
    }


def not_radiology(loaded: LoadedModel, packages: Path | None) -> dict[str, object]:
    """How many questions about pictures that are none of radiology are answered, by what they are."""
    spec = loaded.model.picture
    if spec is None:
        return {}
    answered: dict[str, list[bool]] = defaultdict(list)
    codes: Counter[str] = Counter()
    for number, (kind, image, facts) in enumerate(pictures(packages)):
        visual = prepare_picture(image.convert("RGB"), spec)
        pixels = np.asarray(image.convert("RGB"))
        context = PictureContext(PictureStatistics.of(pixels), facts)
        texts = [Query(f"{number}/{n}", text, f"p{number}", visual) for n, text in enumerate(QUESTIONS)]
        for answer in loaded.guards.answer(texts, {f"p{number}": context}, suggest=False):
            answered[kind].append(not answer.abstention.abstained)
            codes[answer.abstention.code or "answered"] += 1
    total = [value for values in answered.values() for value in values]
    return {
        "pictures": len(total) // len(QUESTIONS),
        "questions": len(total),
        "answered": sum(total),
        "fraction answered": round(sum(total) / len(total), 4),
        "its 95 % interval": rounded(wilson(sum(total), len(total))),
        "reasons": dict(codes),
        **{
            kind: f"{sum(values)} of {len(values)} questions answered, {len(values) // len(QUESTIONS)} pictures"
            for kind, values in sorted(answered.items())
        },
    }


def times(loaded: LoadedModel, texts: list[Query]) -> dict[str, object]:
    """Milliseconds per question, one after the other, each with its picture encoded."""
    some = texts[:: max(1, len(texts) // TIMED)][:TIMED]
    loaded.model.answer(some[:2], loaded.card.decoding)
    loaded.guards.answer(some[:2], suggest=False)
    fresh = Guards.load(loaded.model, loaded.card, loaded.bundle)
    fresh.answer(some[:1], suggest=False)
    seconds: dict[str, list[float]] = defaultdict(list)
    for query in some:
        for name, ask in (
            ("without", lambda q: loaded.model.answer([q], loaded.card.decoding)),
            ("with, first time", lambda q: fresh.answer([q], suggest=False)),
            ("with, again", lambda q: fresh.answer([q], suggest=False)),
        ):
            start = time.perf_counter()
            ask(query)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "questions": len(some),
        "median ms": {name: round(1000 * value, 2) for name, value in medians.items()},
        "ratio to without": {name: round(value / medians["without"], 2) for name, value in medians.items()},
    }


if __name__ == "__main__":
    main()
