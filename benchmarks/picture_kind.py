"""What is said of the kind and the organs of pictures of another source: `python benchmarks/picture_kind.py ROOT`.

Asks the shipped model for both, of every picture of VQA-RAD's training rows, and counts the wrong answers of all and of
those that the guards show. The body part is that of the rows (``organ``); the modality is known of pictures with a row
of type ``MODALITY`` whose answer, or whose question with the answer yes, names one. Then it asks in three wordings for
ten organs, and counts the shown answers that take an organ for present, by whether a picture of the body part can show
it. Some of these pictures chose the limit and the rule in `guards/related_answers.py`, so for both they are no test.

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
from medical_vqa.models.questions.claims import is_yes
from medical_vqa.pipelines.load import LoadedModel, load
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
TRUNK = {"CHEST", "ABD"}  # organs of one are seen at the edge of pictures of the other
ORGANS = {  # organ -> its Chinese name, and the body parts whose pictures can show it
    "liver": ("肝脏", TRUNK),
    "spleen": ("脾脏", TRUNK),
    "kidney": ("肾脏", TRUNK),
    "stomach": ("胃", TRUNK),
    "bladder": ("膀胱", {"ABD"}),
    "heart": ("心脏", TRUNK),
    "lung": ("肺", TRUNK),
    "trachea": ("气管", {"HEAD", "CHEST"}),
    "brain": ("大脑", {"HEAD"}),
    "eye": ("眼睛", {"HEAD"}),
}


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
    figures["organs taken for present"] = organs_present(loaded, firsts, texts)
    json.dump(figures, sys.stdout, indent=1)


def organs_present(loaded: LoadedModel, rows: list[Example], asked: list[Query]) -> dict[str, int]:
    """Shown answers that take an organ for present, where the body part can show it and where it cannot."""
    counts = {"possible": 0, "impossible": 0}
    for row, query in zip(rows, asked, strict=True):
        wordings = [
            (text, organ)
            for organ, (chinese, _) in ORGANS.items()
            for text in (f"Does the picture contain {organ}?", f"Where is the {organ}?", f"图片中包含{chinese}吗?")
        ]
        queries_of_picture = [Query(str(n), text, query.image, query.visual) for n, (text, _) in enumerate(wordings)]
        answers = loaded.guards.answer(queries_of_picture, suggest=False)
        for (text, organ), answer in zip(wordings, answers, strict=True):
            affirms = text.startswith("Where") or is_yes(answer.prediction.answer)
            if affirms and not answer.abstention.abstained:
                counts["possible" if row.facts["organ"] in ORGANS[organ][1] else "impossible"] += 1
    return counts


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
