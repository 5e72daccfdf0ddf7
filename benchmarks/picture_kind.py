"""How well modality and body part of pictures of another source are named: `python benchmarks/picture_kind.py ROOT`.

Asks the shipped model for both, of every picture of VQA-RAD's training rows, and counts the wrong answers of all and of
those that the guards show. The body part is that of the rows (``organ``); the modality is known of pictures with a row
of type ``MODALITY`` whose answer, or whose question with the answer yes, names one. These pictures showed what the
limit in `guards/related_answers.py` must reach, so for it they are no test.

ROOT has VQA-RAD, prepared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection

QUESTIONS = {
    "modality": "What modality is used to take this image?",
    "body part": "Which part of the body does this image belong to?",
}
MODALITIES = {
    "mri": r"\bmri?\b|flair|\bt[12]\b|dwi|\badc\b|diffusion",
    "ct": r"\bct\b|\bcat\b|tomograph",
    "x-ray": r"x-?\s?ray|radiograph|\bcxr\b|plain film",
}
BODY_PARTS = {"HEAD": {"head", "brain", "neck"}, "CHEST": {"chest"}, "ABD": {"abdomen", "pelvic cavity"}}


def main() -> None:
    """Ask everything once, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=default_root())
    root = parser.parse_args().root
    loaded = load("shipped")
    data = SelectedDataset.open(Selection(dataset="vqa-rad", root=root))
    rows_of: dict[str, list[Example]] = defaultdict(list)
    for row in data.rows("train"):
        rows_of[row.image_id].append(row)
    firsts = [rows[0] for rows in rows_of.values()]
    figures: dict[str, object] = {"model": loaded.card.name, "files": dict(loaded.card.files), "pictures": len(firsts)}
    texts = list(queries(data, firsts, loaded.model))
    for name, question in QUESTIONS.items():
        asked = [Query(query.id, question, query.image, query.visual) for query in texts]
        answers = [answer for query in asked for answer in loaded.guards.answer([query], suggest=False)]
        known = []
        for row, answer in zip(firsts, answers, strict=True):
            right = modality_of(rows_of[row.image_id]) if name == "modality" else BODY_PARTS[row.facts["organ"]]
            if right:
                known.append((answer, answer.prediction.answer.lower() not in right))
        shown = [wrong for answer, wrong in known if not answer.abstention.abstained]
        figures[name] = {
            "known": len(known),
            "wrong": sum(wrong for _, wrong in known),
            "shown": len(shown),
            "wrong of the shown": sum(shown),
        }
    json.dump(figures, sys.stdout, indent=1)


def modality_of(rows: list[Example]) -> set[str]:
    """The modality that a picture's rows state; empty where they state none, or several."""
    found = set()
    for row in rows:
        if row.facts["question_type"] != "MODALITY":
            continue
        is_open, answer = row.facts["answer_type"] == "OPEN", row.answers[0].lower()
        stated = answer if is_open else row.question.lower() if answer.startswith("yes") else ""
        found |= {name for name, pattern in MODALITIES.items() if re.search(pattern, stated)}
    return found if len(found) == 1 else set()


if __name__ == "__main__":
    main()
