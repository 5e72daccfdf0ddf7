"""Whether two versions of the code answer alike: guarded answers about SLAKE's validation pictures, and a comparison.

    git checkout BEFORE && python benchmarks/guarded_answers.py write before.jsonl [--root ROOT]
    git checkout AFTER && python benchmarks/guarded_answers.py write after.jsonl [--root ROOT]
    python benchmarks/guarded_answers.py compare before.jsonl after.jsonl

Each question is asked alone, as a server's client asks it, in English and Chinese, and in addition three per picture
that the model refuses for their words. Compared are answer, confidence, alternatives, decision, code and arguments of
the reason, suggestions, image dependence, source and side; numbers may differ by 0.00002, the rounding of other orders
of summation. Of the questions that are refused for their words, image dependence and source are compared only where
both versions measure them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.models.guards.guarded_answer import GuardedAnswer
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.selection import Selection

TOLERANCE = 2e-5
REFUSED = ("Is there a fracture of the clavicle?", "What is shown in this image 17?", "Is the gallbladder inflamed?")
NOT_UNDERSTOOD = ("unknown_word", "unknown_words", "untrained_term", "untrained_terms", "unknown_words_and_terms")
MEASURED_OF_UNDERSTOOD = ("dependence", "source")


def main() -> None:
    """Write the answers of this version, or compare those of two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write_parser = commands.add_parser("write")
    write_parser.add_argument("file", type=Path)
    write_parser.add_argument("--root", type=Path, default=default_root())
    write_parser.add_argument("--every", type=int, default=1, help="ask every n-th question only")
    compare_parser = commands.add_parser("compare")
    compare_parser.add_argument("before", type=Path)
    compare_parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "write":
        write(arguments.file, arguments.root, arguments.every)
        return
    differences = compare(arguments.before, arguments.after)
    json.dump(differences, sys.stdout, indent=1, ensure_ascii=False)
    sys.exit(1 if differences["different"] else 0)


def write(file: Path, root: Path, every: int) -> None:
    """Ask every n-th question alone, and write one JSON object per answer."""
    loaded = load("shipped")
    data = SelectedDataset.open(Selection(dataset="slake", root=root))
    rows = list(queries(data, data.rows("validation"), loaded.model))[::every]
    pictures = {query.image: query for query in rows}
    rows += [
        Query(f"{image}/{number}", question, image, query.visual)
        for image, query in pictures.items()
        for number, question in enumerate(REFUSED)
    ]
    start = time.perf_counter()
    with file.open("w", encoding="utf-8") as lines:
        for query in rows:
            (answer,) = loaded.guards.answer([query])
            lines.write(json.dumps(record(query, answer), ensure_ascii=False) + "\n")
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{len(rows)} questions, {1000 * seconds / len(rows):.1f} ms each\n")


def record(query: Query, answer: GuardedAnswer) -> dict[str, Any]:
    """What is compared of an answer."""
    prediction, abstention = answer.prediction, answer.abstention
    return {
        "id": query.id,
        "question": query.question,
        "answer": prediction.answer,
        "confidence": prediction.confidence,
        "alternatives": [list(pair) for pair in prediction.alternatives],
        "abstained": abstention.abstained,
        "code": abstention.code,
        "arguments": dict(abstention.arguments),
        "suggestions": list(abstention.suggestions),
        "dependence": answer.dependence.score if answer.dependence else None,
        "source": answer.source,
        "side": answer.side,
    }


def compare(before: Path, after: Path) -> dict[str, Any]:
    """How many answers differ, in which fields, with examples."""
    one, other = ([json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (before, after))
    if [row["id"] for row in one] != [row["id"] for row in other]:
        raise SystemExit(f"{before} and {after} hold answers to different questions; write both with the same --root")
    fields: Counter[str] = Counter()
    examples: list[Any] = []
    different = 0
    for first, second in zip(one, other, strict=True):
        names = [name for name in first if not same(name, first, second)]
        fields.update(names)
        different += bool(names)
        if names and len(examples) < 5:
            examples.append([{name: row[name] for name in ("id", "question", *names)} for row in (first, second)])
    no_longer = [a["dependence"] is not None and b["dependence"] is None for a, b in zip(one, other, strict=True)]
    return {
        "questions": len(one),
        "refused": sum(row["abstained"] for row in one),
        "different": different,
        "fields": dict(fields),
        "not measured any more": sum(no_longer),
        "examples": examples,
    }


def same(name: str, first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two answers agree in a field."""
    if name in MEASURED_OF_UNDERSTOOD and first["code"] in NOT_UNDERSTOOD and None in (first[name], second[name]):
        return True
    return close(first[name], second[name])


def close(first: Any, second: Any) -> bool:
    """Equality, but for the last digits of numbers."""
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= TOLERANCE
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(close(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


if __name__ == "__main__":
    main()
