"""Result files of other evaluation tools, recognized by their fields and read as they are.

* lmms-eval, lm-evaluation-harness: ``..._samples_TASK.jsonl`` (``doc_id``, ``filtered_resps``, ``target``)
* VLMEvalKit: xlsx, tsv or json (``index``, ``question``, ``answer``, ``prediction``)
* MedEvalKit: ``results.json`` (``response``, ``answer``, ``question`` or ``prompt``)
* LLaVA: answer files (``question_id``, ``prompt``, ``text``, ``model_id``)
* OpenAI: batch output (``custom_id``, ``response``, ``error``)
* HELM: ``scenario_state.json`` (``request_states``), or ``display_predictions.json`` with ``instances.json`` next to it
* Inspect: logs as JSON or ``.eval`` (``samples`` with ``target`` and ``output``)
* VQA-Med: run files of the challenge (``synpic1|mass``, no header)

Each is joined by its id, then by the image, by the question and the reference, or by the order of its rows; the first
join that agrees with all that the file says is taken.

Some tools ask a question several times: HELM in trials, Inspect in epochs, lm-evaluation-harness and lmms-eval by
``repeats``, and the filters of the harness answer it again. The first answer is read; the others are named.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.table_files import Row, ending_of, json_content, open_text, table_rows
from medical_vqa.data.formats.values import MISSING, as_id, as_text, lookup
from medical_vqa.errors import DataError
from medical_vqa.evaluation.imports.columns import ROW_ORDER, guess_fields
from medical_vqa.evaluation.imports.matching import FileRow, image_name, match_rows
from medical_vqa.io import json_type, json_value
from medical_vqa.schema.records import Example

_FIELDS = ("id", "image", "question", "reference", "answer", "position")
_HELM_DISPLAY = frozenset({"instance_id", "predicted_text", "train_trial_index"})
"""Fields of every row of HELM's ``display_predictions.json``."""
_GREEDY = ("True", "False")
"""How lm-evaluation-harness writes whether a choice is what a greedy decoder writes."""
_VLMEVALKIT_FAILED = "Failed to obtain answer via API."
"""What VLMEvalKit writes in place of the answer to a failed request."""
_JOINS: Sequence[tuple[str, ...]] = (
    ("id", "question", "reference"),
    ("image", "question", "reference"),
    ("question", "reference"),
    ("position", "question", "reference"),
)


@dataclass(frozen=True, slots=True)
class ToolFile:
    """The rows of a tool's file under the names of this project."""

    tool: str
    """Name of the tool."""
    rows: Sequence[Mapping[str, Any]]
    """Rows with the fields id, image, question, reference, answer and position, as far as the tool states them.

    Those that answer a question again are left out; ``answered_again`` is true in the row of its first answer.
    """


def read_tool_file(path: Path) -> ToolFile | None:
    """The rows of a file of a known tool; None for any other file.

    Raises:
        DataError: The file is damaged.
    """
    if path.suffix.lower() == ".eval":
        return ToolFile("inspect", _first_answers(map(_inspect, _objects(path, _eval_samples(path)))))
    if path.suffix.lower() == ".txt" and (run := _run_file(path)):
        return ToolFile("vqa-med", run)
    if ending_of(path) == ".json" and (known := _run_of(path, json_content(path, or_lines=True))):
        return known
    rows = list(table_rows(path))
    for tool, fields, convert in _TOOLS:
        if rows and all(fields <= row.keys() for row in rows):
            return ToolFile(tool, _first_answers(map(convert, rows)))
    return None


def _run_of(path: Path, content: Any) -> ToolFile | None:
    """The rows of HELM or Inspect, whose files hold more than rows, or rows without their questions."""
    if isinstance(content, Mapping) and isinstance(content.get("request_states"), list):
        return ToolFile("helm", _first_answers(map(_helm, _objects(path, content["request_states"]))))
    if isinstance(content, Mapping) and isinstance(content.get("samples"), list) and "eval" in content:
        return ToolFile("inspect", _first_answers(map(_inspect, _objects(path, content["samples"]))))
    rows = content if isinstance(content, list) else []
    if rows and all(isinstance(row, Mapping) and row.keys() >= _HELM_DISPLAY for row in rows):
        return ToolFile("helm", _first_answers(_helm_display(path, rows)))
    return None


def _first_answers(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that answer a question in a further ``round``: a trial, an epoch or a filter."""
    first: dict[str, dict[str, Any]] = {}
    first_answers: list[dict[str, Any]] = []
    for row in rows:
        question = row.get("position") or row.get("id") or ""
        earlier = first.setdefault(question, row) if question else row
        if earlier.get("round") == row.get("round"):
            first_answers.append(row)
        else:
            earlier["answered_again"] = True
    return first_answers


def join_tool_file(path: Path, file: ToolFile, examples: Sequence[Example]) -> list[FileRow]:
    """The rows of a tool's file with the columns of the join that agrees with all that the file says.

    Args:
        path: The file, for messages.
        file: Its rows.
        examples: The rows of the split.

    Raises:
        DataError: No join agrees; the message is that of the first.
    """
    present = {field for field in _FIELDS if any(row.get(field) not in (None, "", MISSING) for row in file.rows)}
    best: list[FileRow] = []
    problem: DataError | None = None
    matched = -1
    for join in _JOINS:
        if join[0] not in present:
            continue
        columns = {field: field for field in (*join, "answer") if field in present or field == "answer"}
        rows = [FileRow(number, row, columns) for number, row in enumerate(file.rows, 1)]
        try:
            count = sum(bool(ids) for ids in match_rows(path, rows, examples))
        except DataError as error:
            problem = problem or error
            continue
        if count > matched:
            best, matched = rows, count
        if count == len(rows):
            break
    if matched <= 0 and len(file.rows) == len(examples) and {"question", "reference"} & present:
        columns = {"position": ROW_ORDER, **{field: field for field in ("question", "reference") if field in present}}
        best = [FileRow(n, row, {**columns, "answer": "answer"}) for n, row in enumerate(file.rows, 1)]
        match_rows(path, best, examples)
    elif problem is not None and 2 * matched < len(file.rows):
        raise problem
    return best


def _objects(path: Path, rows: Iterable[Any]) -> Iterator[Row]:
    """The rows, which are objects; raises `DataError` for one that is not."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path} row {number}: expected an object, got {json_type(row)}; write the file again")
        yield row


def _first(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _are_several(answers: Any) -> bool:
    """Whether a tool's list of answers, which may stand in a list for each request, has more than one."""
    while isinstance(answers, list) and len(answers) == 1:
        answers = answers[0]
    return isinstance(answers, list) and len(answers) > 1


def _lmms(row: Row) -> dict[str, Any]:
    records = [value for value in row.values() if isinstance(value, Mapping) and "prediction" in value]
    record = records[0] if records else {}
    content = row.get("doc")
    doc: Row = content if isinstance(content, Mapping) else {}  # which lm-evaluation-harness writes
    columns = guess_fields(list(map(str, doc)))
    stated = {field: doc[columns[field]] for field in ("id", "image", "question") if field in columns}
    prompt = row.get("input", lookup(row, "arguments.gen_args_0.arg_0"))
    answers, target = record.get("prediction", row["filtered_resps"]), _first(row.get("target"))
    choices = _likelihoods(row)
    if choices:
        answers = max(choices, key=lambda choice: choice[0])[1]
        target = choices[target][1] if isinstance(target, int) and 0 <= target < len(choices) else target
    return {
        "id": as_id(record.get("id", stated.get("id"))),
        "image": as_text(image_name(stated.get("image"))),
        "question": as_text(_first(stated.get("question", prompt))),
        "reference": as_text(target),
        **({} if answers is MISSING else {"answer": _first(answers)}),
        "position": as_id(row["doc_id"]),
        "round": as_text(row.get("filter")),
        "answered_again": not choices and any(map(_are_several, (answers, row["filtered_resps"], row.get("resps")))),
    }


def _likelihoods(row: Row) -> list[tuple[float, Any]]:
    """Log likelihood and text of each choice, where a task compares those and writes no answer; otherwise empty.

    The harness writes ``[-1.5, false]`` for each choice: whether a greedy decoder would write it does not matter.
    """
    responses = row["filtered_resps"]
    pairs = responses if isinstance(responses, list) else []
    if len(pairs) < 2 or not all(isinstance(one, list) and len(one) == 2 and str(one[1]) in _GREEDY for one in pairs):
        return []
    texts = [
        lookup(row, f"arguments.{name}{number}.{place}")
        for number in range(len(pairs))
        for name, place in (("gen_args_", "arg_1"), ("", "1"))
        if lookup(row, f"arguments.{name}{number}") is not MISSING
    ]
    if len(texts) != len(pairs):
        texts = [MISSING] * len(pairs)
    try:
        return [(float(likelihood), text) for (likelihood, _), text in zip(pairs, texts, strict=True)]
    except (TypeError, ValueError):
        return []


def _vlmevalkit(row: Row) -> dict[str, Any]:
    return {
        "id": as_id(row.get("id") or row["index"]),
        "question": as_text(row["question"]),
        "reference": as_text(row["answer"]),
        **({} if _VLMEVALKIT_FAILED in as_text(row["prediction"]) else {"answer": row["prediction"]}),
        "position": as_id(row["index"]),
    }


def _medevalkit(row: Row) -> dict[str, Any]:
    question = row.get("question") or row.get("prompt")
    return {"question": as_text(question), "reference": as_text(row["answer"]), "answer": row["response"]}


def _llava(row: Row) -> dict[str, Any]:
    return {"id": as_id(row["question_id"]), "question": as_text(row.get("prompt")), "answer": row["text"]}


def _openai_batch(row: Row) -> dict[str, Any]:
    body = lookup(row, "response.body")
    content = lookup(body, "choices.0.message.content")
    output = lookup(body, "output")
    if content is MISSING and isinstance(output, list):  # of the Responses API, in which reasoning may come before
        messages = [
            item.get("content") for item in output if isinstance(item, Mapping) and item.get("type") == "message"
        ]
        parts = [part for message in messages if isinstance(message, list) for part in message]
        texts = [as_text(part["text"]) for part in parts if isinstance(part, Mapping) and "text" in part]
        content = "\n".join(texts) if texts else MISSING
    return {
        "id": as_text(row["custom_id"]),
        **({} if content is MISSING else {"answer": content}),
        "answered_again": _are_several(lookup(body, "choices")),
    }


def _helm(row: Row) -> dict[str, Any]:
    answer = lookup(row, "result.completions.0.text")
    choices = row.get("output_mapping")  # of the letters in the prompt to the choices
    if isinstance(choices, Mapping):
        answer = choices.get(as_text(answer).strip(), answer)
    return {
        **_helm_instance(lookup(row, "instance")),
        **({} if answer is MISSING else {"answer": answer}),
        "round": tuple(
            as_text(lookup(row, part)) for part in ("instance.perturbation.name", "train_trial_index", "request.random")
        ),
        "answered_again": _are_several(lookup(row, "result.completions")),
    }


def _helm_instance(instance: Any) -> dict[str, Any]:
    """Id, question and reference of an instance of HELM."""
    objects = lookup(instance, "input.multimedia_content.media_objects")
    texts = [part.get("text", "") for part in objects if isinstance(part, Mapping)] if isinstance(objects, list) else []
    references = lookup(instance, "references")
    right = [
        lookup(one, "output.text")
        for one in (references if isinstance(references, list) else ())
        if isinstance(one, Mapping) and "correct" in (one.get("tags") or ())
    ]
    return {
        "id": as_text(lookup(instance, "id")),
        "question": " ".join(text for text in texts if text) or as_text(lookup(instance, "input.text")),
        "reference": as_text(_first(right) if right else ""),
    }


def _helm_display(path: Path, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The answers of ``display_predictions.json`` with the questions of ``instances.json`` of the same run folder.

    Raises:
        DataError: There is no such file next to it, or it is of another run.
    """
    names = dict.fromkeys((path.name.replace("display_predictions", "instances"), "instances.json"))
    siblings = [path.with_name(name) for name in names if name != path.name and path.with_name(name).is_file()]
    if not siblings:
        raise DataError(
            f"{path}: has the answers of a run of HELM without their questions; put instances.json of the same run "
            "folder next to it, or name scenario_state.json of that folder"
        )
    content = json_content(siblings[0])
    instances: dict[str, dict[str, Any]] = {}
    for one in _objects(siblings[0], content if isinstance(content, list) else [content]):
        instance = _helm_instance(one)
        instances.setdefault(instance["id"], instance)  # the perturbed ones follow
    times: Counter[tuple[str, str, str]] = Counter()
    for number, row in enumerate(rows, 1):
        id_ = as_text(row["instance_id"])
        if id_ not in instances:
            raise DataError(
                f"{path} row {number}: answers the instance {id_}, which {siblings[0]} does not have; put "
                "instances.json of the same run folder next to it"
            )
        trial = (id_, as_text(lookup(row, "perturbation.name")), as_text(row["train_trial_index"]))
        times[trial] += 1
        answer = row.get("mapped_output")
        yield {
            **instances[id_],
            "answer": row["predicted_text"] if answer is None else answer,
            "round": (*trial[1:], times[trial]),
        }


def _inspect(row: Row) -> dict[str, Any]:
    source = row.get("input")
    texts = [source] if isinstance(source, str) else []
    for message in source if isinstance(source, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else message
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [as_text(part.get("text")) for part in parts if isinstance(part, Mapping) and part.get("text")]
    answer = lookup(row, "output.choices.0.message.content")
    if isinstance(answer, list) and any(isinstance(part, Mapping) for part in answer):
        texts_of = [part for part in answer if isinstance(part, Mapping) and part.get("type") == "text"]
        answer = "\n".join(as_text(part.get("text")) for part in texts_of)
    if answer is MISSING and not row.get("error"):  # a sample that failed has an empty completion
        answer = lookup(row, "output.completion")
    return {
        "id": as_id(row.get("id")),
        "question": "\n".join(texts),
        "reference": as_text(_first(row.get("target"))),  # each of several is a right answer
        **({} if answer is MISSING else {"answer": answer}),
        "round": as_text(row.get("epoch")),
        "answered_again": _are_several(lookup(row, "output.choices")),
    }


_TOOLS: Sequence[tuple[str, frozenset[str], Callable[[Row], dict[str, Any]]]] = (
    ("lmms-eval", frozenset({"doc_id", "filtered_resps", "target"}), _lmms),
    ("vlmevalkit", frozenset({"index", "question", "answer", "prediction"}), _vlmevalkit),
    ("openai-batch", frozenset({"custom_id", "response"}), _openai_batch),
    ("llava", frozenset({"question_id", "text", "model_id"}), _llava),
    ("medevalkit", frozenset({"response", "answer", "prompt"}), _medevalkit),
    ("medevalkit", frozenset({"response", "answer", "question", "correct"}), _medevalkit),
)


def _run_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a run file of VQA-Med, most of whose lines are an image and an answer; empty for any other file.

    Raises:
        DataError: Some lines are not.
    """
    with open_text(path, "text") as file:
        lines = [(number, line.strip("\r\n").split("|")) for number, line in enumerate(file, 1) if line.strip()]
    bad = [(number, cells) for number, cells in lines if len(cells) != 2 or not cells[0].strip()]
    if 2 * len(bad) >= len(lines) or {"id", "image", "question"} & guess_fields(lines[0][1]).keys():
        return []
    if bad:
        number, cells = bad[0]
        further = f" (and {len(bad) - 1:,} more like it)" if len(bad) > 1 else ""
        raise DataError(
            f"{path}:{number}: expected an image and an answer with one | between them, such as synpic1|mass, got "
            f"{'|'.join(cells)[:80]!r}{further}; correct it"
        )
    return [{"image": image.strip(), "answer": answer} for _, (image, answer) in lines]


def _eval_samples(path: Path) -> Iterable[dict[str, Any]]:
    """The samples of a log in Inspect's binary form, a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("samples/"))
            return [json_value(archive.read(name).decode()) for name in names]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: is not a complete log of Inspect ({error}); write it again, or as JSON") from error
