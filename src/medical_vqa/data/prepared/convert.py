"""A prepared dataset written in another program's layout: its rows, and its images as files or within the rows.

Every layout is read again by the format of the same name (``prepare llava-json --source ...``), except ``lmms-eval``,
which is a task of that program.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.io import atomic_path, atomic_write, describe_disk_errors
from medical_vqa.schema.records import Example, Split, Turn
from medical_vqa.text import did_you_mean


def convert(dataset: PreparedDataset, layout: str, folder: Path) -> list[Path]:
    """Write a prepared dataset in a layout.

    Args:
        dataset: The dataset.
        layout: One of `LAYOUTS`.
        folder: Folder to write into; it is created.

    Returns:
        The files with rows.

    Raises:
        ConfigError: The layout is unknown, or has no place for what rows are about: several images, or earlier turns.
        DataError: The disk is full or the folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; {did_you_mean(layout, LAYOUTS)}")
    if layout not in _CONVERSATIONS:
        _refuse_conversations(dataset, layout)
    with describe_disk_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "LICENSE.txt", (dataset.folder / "LICENSE.txt").read_text(encoding="utf-8"))
        return [LAYOUTS[layout](dataset, split, folder) for split in dataset.splits]


def _refuse_conversations(dataset: PreparedDataset, layout: str) -> None:
    rows = sum(bool(row.other_image_ids or row.turns) for split in dataset.splits for row in dataset.examples(split))
    if rows:
        raise ConfigError(
            f"{rows:,} rows of {dataset.name} have several images or earlier turns, for which {layout} has no place; "
            f"choose one of {', '.join(_CONVERSATIONS)}"
        )


@dataclass(frozen=True, slots=True)
class _Conversation:
    """Rows of which each continues the one before it."""

    row: Example
    """The last one, whose turns are the others."""

    @property
    def id(self) -> str:
        """Its id, without the number of the turn."""
        return self.row.id.removesuffix(f".{len(self.row.turns) + 1}") if self.row.turns else self.row.id

    @property
    def turns(self) -> list[tuple[list[str | int], str]]:
        """The parts of each question, texts and numbers of images, with its answer."""
        row = self.row
        places = row.image_places or ((0, 0),) * len(row.images)
        turns = []
        for number, (question, answer) in enumerate(
            zip(row.questions, (*(turn.answer for turn in row.turns), _answer(row)), strict=True)
        ):
            parts: list[str | int] = []
            start = 0
            for image, (turn, character) in enumerate(places):
                if turn == number:
                    parts += [question[start:character], image]
                    start = character
            turns.append(([part for part in (*parts, question[start:]) if part != ""], answer))
        return turns


def _conversations(dataset: PreparedDataset, split: Split) -> Iterator[_Conversation]:
    """The rows of a split, those of a conversation as one."""
    previous: Example | None = None
    for row in dataset.examples(split):
        if previous is not None and not _continues(row, previous):
            yield _Conversation(previous)
        previous = row
    if previous is not None:
        yield _Conversation(previous)


def _continues(row: Example, previous: Example) -> bool:
    return (
        row.turns == (*previous.turns, Turn(previous.question, _answer(previous)))
        and row.system == previous.system
        and row.facts == previous.facts
        and row.images[: len(previous.images)] == previous.images
        and len(previous.answers) <= 1
    )


def _image_files(dataset: PreparedDataset, row: Example, folder: Path) -> list[str]:
    """Copies the images of a row once, and returns their paths in the folder."""
    names = []
    for image_id in row.images:
        path = dataset.images.path(image_id)
        target = folder / "images" / path.name
        target.parent.mkdir(exist_ok=True)
        if not target.is_file():
            with atomic_path(target) as temporary:
                shutil.copyfile(path, temporary)
        names.append(f"images/{path.name}")
    return names


def _answer(row: Example) -> str:
    return row.answers[0] if row.answers else ""


def _write_json(path: Path, content: Any) -> Path:
    atomic_write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return path


def _llava(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    rows = []
    for conversation in _conversations(dataset, split):
        row = conversation.row
        images = _image_files(dataset, row, folder)
        turns = [{"from": "system", "value": row.system}] if row.system else []
        for parts, answer in conversation.turns:
            turns += [{"from": "human", "value": _with_tokens(parts, "\n")}, {"from": "gpt", "value": answer}]
        image = images if len(images) > 1 else images[0]
        rows.append({"id": conversation.id, "image": image, "conversations": turns, **row.facts})
    return _write_json(folder / f"{split}.json", rows)


def _sharegpt(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    rows = []
    for conversation in _conversations(dataset, split):
        row = conversation.row
        images = _image_files(dataset, row, folder)
        turns = [{"role": "system", "content": row.system}] if row.system else []
        for parts, answer in conversation.turns:
            turns += [
                {"role": "user", "content": _with_tokens(parts, "")},
                {"role": "assistant", "content": answer},
            ]
        rows.append({"id": conversation.id, "messages": turns, "images": images, **row.facts})
    return _write_json(folder / f"{split}.json", rows)


def _messages(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    lines = []
    for conversation in _conversations(dataset, split):
        row = conversation.row
        images = _image_files(dataset, row, folder)
        turns: list[dict[str, Any]] = [{"role": "system", "content": row.system}] if row.system else []
        for parts, answer in conversation.turns:
            content = [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image_url", "image_url": {"url": images[part]}}
                for part in parts
            ]
            turns += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        content_of_row = {"id": conversation.id, "messages": turns, **row.facts}
        lines.append(json.dumps(content_of_row, ensure_ascii=False) + "\n")
    atomic_write(folder / f"{split}.jsonl", "".join(lines))
    return folder / f"{split}.jsonl"


def _with_tokens(parts: Sequence[str | int], after: str) -> str:
    """A question with a token for each image; `after` stands behind those before its first word."""
    first = next((number for number, part in enumerate(parts) if isinstance(part, str)), len(parts))
    return f"<image>{after}" * first + "".join(part if isinstance(part, str) else "<image>" for part in parts[first:])


def _coco(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    images: dict[str, dict[str, str]] = {}
    for row in dataset.examples(split):
        name = _image_files(dataset, row, folder)[0]
        image = images.setdefault(row.image_id, {"id": row.image_id, "file_name": name})
        about = {"question_id": row.id, "image_id": image["id"]}
        questions.append({**about, "question": row.question})
        answers = [
            {"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(row.answers, 1)
        ]
        annotations.append({**about, "answers": answers, "multiple_choice_answer": _answer(row), **row.facts})
    _write_json(folder / f"{split}_annotations.json", {"annotations": annotations, "images": list(images.values())})
    return _write_json(folder / f"{split}_questions.json", {"questions": questions})


def _table_rows(dataset: PreparedDataset, split: Split, folder: Path) -> Iterator[dict[str, Any]]:
    for row in dataset.examples(split):
        yield {
            "id": row.id,
            "image": _image_files(dataset, row, folder)[0],
            "question": row.question,
            "answer": _answer(row),
            "split": split,
            "group": row.group,
            **{fact: value for fact, value in row.facts.items() if fact not in ("id", "image", "question", "answer")},
        }


def _csv(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    rows = list(_table_rows(dataset, split, folder))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / f"{split}.csv", text.getvalue())
    return folder / f"{split}.csv"


def _hub_parquet(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "writing parquet needs pyarrow, which is not installed; run: pip install 'medical-vqa[parquet]'"
        ) from error
    path = folder / "data" / f"{split}-00000-of-00001.parquet"
    rows = dataset.examples(split)
    facts = list(dict.fromkeys(fact for row in rows for fact in row.facts))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = [("question", pa.string()), ("answer", pa.string()), ("id", pa.string()), ("group", pa.string())]
    schema = pa.schema([("image", image), *texts, *((fact, pa.string()) for fact in facts)])
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(rows), _ROWS_IN_MEMORY):
            part = [
                {
                    "image": {"bytes": dataset.images.path(row.image_id).read_bytes(), "path": None},
                    "question": row.question,
                    "answer": _answer(row),
                    "id": row.id,
                    "group": row.group,
                    **{fact: row.facts.get(fact) for fact in facts},
                }
                for row in rows[start : start + _ROWS_IN_MEMORY]
            ]
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
    return path


_ROWS_IN_MEMORY = 256


def _vlmevalkit(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    """A TSV whose repeated images are the index of their first row, as VLMEvalKit reads them."""
    path = folder / f"{dataset.name}_{split}.tsv"
    letters = "ABCDEFGHIJ"
    rows = dataset.examples(split)
    options = [json.loads(row.facts.get("options", "{}")) for row in rows]
    used = [letter for letter in letters if any(letter in one for one in options)]
    first: dict[str, int] = {}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "image", "question", *used, "answer", "id", "category", "split"])
        for index, (row, choices) in enumerate(zip(rows, options, strict=True)):
            known = first.setdefault(row.image_id, index)
            image = str(known)
            if known == index:
                image = base64.b64encode(dataset.images.path(row.image_id).read_bytes()).decode()
            question = row.question.split("\n")[0] if choices else row.question
            answer = row.facts.get("choice", "") if choices else _answer(row)
            category = row.facts.get("content_type", row.facts.get("question_type", ""))
            choice_cells = [choices.get(letter, "") for letter in used]
            writer.writerow([index, image, question, *choice_cells, answer, row.id, category, split])
    return path


def _lmms_eval(dataset: PreparedDataset, split: Split, folder: Path) -> Path:
    """A task of lmms-eval that reads the parquet file next to it; it scores by equality in lower case."""
    data = _hub_parquet(dataset, split, folder)
    name = f"{dataset.name.replace('-', '_')}_{split}"
    atomic_write(folder / "utils.py", _LMMS_UTILS)
    lines = [
        f"task: {name}",
        "dataset_path: parquet",
        "dataset_kwargs:",
        "  data_files:",
        f"    test: {data.relative_to(folder).as_posix()}",
        "test_split: test",
        "output_type: generate_until",
        "doc_to_visual: !function utils.doc_to_visual",
        "doc_to_text: !function utils.doc_to_text",
        "doc_to_target: answer",
        "process_results: !function utils.process_results",
        "generation_kwargs:",
        "  max_new_tokens: 32",
        "metric_list:",
        "  - metric: exact_match",
        "    aggregation: mean",
        "    higher_is_better: true",
    ]
    atomic_write(folder / f"{name}.yaml", "\n".join(lines) + "\n")
    return folder / f"{name}.yaml"


_LMMS_UTILS = '''"""Functions of the lmms-eval task next to this file."""

import io

from PIL import Image


def doc_to_visual(doc):
    """The picture of a row."""
    image = doc["image"]
    return [(Image.open(io.BytesIO(image["bytes"])) if isinstance(image, dict) else image).convert("RGB")]


def doc_to_text(doc):
    """The prompt of a row."""
    return doc["question"] + "\\nAnswer the question using a single word or phrase."


def process_results(doc, results):
    """Whether the answer equals the reference in lower case; `medical-vqa score` reads the logged samples by id."""
    return {"exact_match": float(results[0].strip().lower() == doc["answer"].strip().lower())}
'''

_CONVERSATIONS = ("llava-json", "sharegpt", "messages")
"""Layouts with several images and turns."""
LAYOUTS: Mapping[str, Callable[[PreparedDataset, Split, Path], Path]] = {
    "llava-json": _llava,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "coco-vqa": _coco,
    "csv": _csv,
    "hub-parquet": _hub_parquet,
    "vlmevalkit": _vlmevalkit,
    "lmms-eval": _lmms_eval,
}
"""Layout -> function that writes one split."""
