"""A language model as judge of answers: whether each says the same as the reference, in both orders of the two.

A judge is never alone: its number stands next to exact match, with the fraction of judgments that depend on the order
of the two answers, and with the agreement with judgments that the file has already, of another judge or of people.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.extraction import final_answer
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.protocols.judge import PROTOCOL
from medical_vqa.evaluation.statistics.agreement import cohen_kappa
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.io import atomic_write, file_name, received, remove_half_line
from medical_vqa.pipelines.inputs import answered_rows, read_answers
from medical_vqa.pipelines.load import CONCURRENCY, remote_named
from medical_vqa.pipelines.runs import output_path, require_other_file
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.records import Example, Prediction, Split, read_jsonl, write_jsonl
from medical_vqa.schema.results import Bootstrap, Score
from medical_vqa.schema.selection import Selection
from medical_vqa.text import squad_normalize

if TYPE_CHECKING:
    from medical_vqa.models.remote.client import EndpointClient
    from medical_vqa.models.remote.endpoint import Endpoint
    from medical_vqa.models.remote.usage import Usage

PROMPT_VERSION = 1
"""Changes with every change of `PROMPT`: judgments of two versions are not comparable."""
PROMPT = """Two people answered a question about the same medical image.
Question: {question}
First answer: {first}
Second answer: {second}
Do both answers say the same about the image, as far as the question asks? Synonyms, abbreviations and word order do not
matter. Another side, number, organ, finding or modality, or a part of the answer that is missing, makes them different.
Reply with one word: same or different."""
_BATCH = 256  # questions that are submitted at once
_MAX_TOKENS = 1024  # room for the reasoning of a judge that thinks


@dataclass(frozen=True, slots=True)
class Judged:
    """A predictions file with the judgments of a judge."""

    path: Path
    """Predictions with ``judged_right``; `score --protocol judge` scores it."""
    judge: str
    """Name of the judge."""
    accuracy: Score
    """Fraction of the answers that the judge calls right."""
    exact_match: Score
    """Exact match of the same answers."""
    compared: int
    """Number of different pairs of answers that were put to the judge, in both orders."""
    order_dependent: int
    """Number of them whose judgment depends on the order of the two answers; they count as wrong."""
    unreadable: int
    """Number of them with a reply that is no judgment; they count as wrong."""
    agreement: Score | None
    """Cohen's kappa with the judgments that the file had; None where it had none."""
    usage: Usage
    """What the judge spent on this file, in this call."""
    price: tuple[float, float] | None
    """Cost per million tokens in and out; None where it is not known."""

    def __str__(self) -> str:
        from medical_vqa.evaluation.reporting.judge_text import judge_text

        pairs = (self.compared, self.order_dependent, self.unreadable)
        return judge_text(self.judge, self.accuracy, self.exact_match, pairs, self.agreement)


@dataclass(frozen=True, slots=True)
class _Pair:
    """What a judgment depends on."""

    question: str
    reference: str
    answer: str

    @property
    def key(self) -> str:
        """Name in the file of judgments."""
        text = json.dumps([PROMPT_VERSION, self.question, self.reference, self.answer])
        return hashlib.sha256(text.encode()).hexdigest()


def judge(
    predictions: Path,
    judge_name: str,
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    where: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    allow_http: bool = False,
    concurrency: int | None = None,
    out: Path | None = None,
) -> Judged:
    """Ask a remote model whether each answer says the same as its reference.

    Answers that equal a reference under SQuAD v2's rule are right without asking, empty ones wrong. Every judgment is
    kept in a file next to the result, so that the same command resumes, and equal pairs are asked once.

    Args:
        predictions: The predictions file, also of another program.
        judge_name: The judge, ``openai:MODEL`` and the like, or a name in ``models.yaml``.
        selection: Rows that a file without a card answers.
        split: Split of these rows.
        where: Facts that the rows of the file's card must have in addition.
        columns: Columns of another program's file.
        base_url: Address of the endpoint.
        api_key: Key of the endpoint; None: from the environment.
        api_key_env: Variable that holds the key.
        allow_http: Whether the key may travel without encryption.
        concurrency: Requests at once.
        out: File to write; by default ``judged-….jsonl`` next to the predictions.

    Raises:
        ConfigError: The judge is no remote model.
        DataError: The file cannot be read or answers none of the rows.
        ModelError: The endpoint cannot be reached; judgments so far are kept.
    """
    changes = {"base_url": base_url, "api_key_env": api_key_env, "allow_http": allow_http or None}
    name = remote_named(judge_name, {key: value for key, value in changes.items() if value is not None})
    if name is None:
        raise ConfigError(
            f"the judge {received(judge_name)} is no remote model; name openai:MODEL with --base-url, or one of "
            "models.yaml"
        )
    rows = answered_rows(predictions, selection, split, where=where)
    answered = join(rows.examples(), read_answers(predictions, columns, rows.examples()).predictions)
    answered.require_scored()
    path = out or output_path(predictions, "judged", ".jsonl")
    require_other_file(path, (predictions, card_path(predictions)))
    endpoint = replace(name.endpoint, max_tokens=max(name.endpoint.max_tokens, _MAX_TOKENS), logprobs=False)
    settled = {row.id: _settled(row, answered.answers[row.id]) for row in answered.scored}
    pairs = {row.id: _pair(row, answered.answers[row.id]) for row in answered.scored if settled[row.id] is None}
    to_ask = list(dict.fromkeys(pairs.values()))
    workers = (name.concurrency or CONCURRENCY) if concurrency is None else concurrency
    judgments, usage = _judgments(to_ask, endpoint, path, api_key=api_key, concurrency=workers)
    from_judge = {id_: judgments[pair.key] == ["same", "same"] for id_, pair in pairs.items()}
    right = {id_: from_judge[id_] if judgment is None else judgment for id_, judgment in settled.items()}
    judged = [replace(answer, judged_right=right.get(answer.id)) for answer in answered.predictions]
    write_jsonl(path, judged)
    if card_path(predictions).is_file():
        atomic_write(card_path(path), card_path(predictions).read_text(encoding="utf-8"))
    overall, *_ = PROTOCOL.published_metrics()
    own = [judgments[pair.key] for pair in to_ask]
    return Judged(
        path=path,
        judge=endpoint.model,
        accuracy=tally(overall, answered.scored, {answer.id: answer for answer in judged}).score(Bootstrap()),
        exact_match=tally(exact_match(), answered.scored, answered.answers).score(Bootstrap()),
        compared=len(to_ask),
        order_dependent=sum(set(judgment) == {"same", "different"} for judgment in own),
        unreadable=sum(None in judgment for judgment in own),
        agreement=_agreement(answered.scored, answered.answers, right),
        usage=usage,
        price=name.price,
    )


def _settled(example: Example, prediction: Prediction) -> bool | None:
    """True for an answer that equals a reference, False for an empty one, None for one to ask about."""
    answer = final_answer(prediction.answer).strip()
    if any(squad_normalize(answer) == squad_normalize(gold) for gold in example.answers):
        return True
    return None if answer else False


def _pair(example: Example, prediction: Prediction) -> _Pair:
    references = " or ".join(dict.fromkeys(example.answers))
    return _Pair(example.question, references, final_answer(prediction.answer).strip())


def _judgments(
    pairs: Sequence[_Pair], endpoint: Endpoint, path: Path, *, api_key: str | None, concurrency: int
) -> tuple[dict[str, list[str | None]], Usage]:
    """Key of each pair -> judgments of both orders; those in the file of judgments are not asked again."""
    from medical_vqa.models.remote.client import EndpointClient

    file = judgment_file(path, endpoint.model)
    remove_half_line(file)
    known = dict(_known(file))
    key = os.environ.get(endpoint.api_key_env, "") if api_key is None else api_key
    client = EndpointClient(endpoint, api_key=key, concurrency=concurrency)
    try:
        missing = [pair for pair in pairs if pair.key not in known]
        file.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            with file.open("a", encoding="utf-8") as lines:
                for pair, judgment in zip(part, _asked(client, part), strict=True):
                    known[pair.key] = judgment
                    lines.write(json.dumps({"key": pair.key, "judgments": judgment}) + "\n")
                    lines.flush()
    finally:
        client.close()
    return known, client.usage


def judgment_file(path: Path, judge_name: str) -> Path:
    """The file that keeps every judgment of a judge on the answers of a judged file."""
    return path.with_name(f"{path.stem}.{file_name(judge_name)}.judgments.jsonl")


def _known(file: Path) -> Iterator[tuple[str, list[str | None]]]:
    if file.is_file():
        for row in read_jsonl(file):
            yield row["key"], row["judgments"]


def _asked(client: EndpointClient, pairs: Sequence[_Pair]) -> Iterator[list[str | None]]:
    """The judgments of pairs, in order: reference first, then answer first."""
    orders = [((pair.reference, pair.answer), (pair.answer, pair.reference)) for pair in pairs]
    futures = [
        [client.submit(client.complete(_messages(pair.question, *order))) for order in both]
        for pair, both in zip(pairs, orders, strict=True)
    ]
    try:
        for both in futures:
            yield [read_judgment(future.result().text) for future in both]
    finally:
        for both in futures:
            for future in both:
                future.cancel()


def _messages(question: str, first: str, second: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPT.format(question=question, first=first, second=second)}]


def read_judgment(text: str) -> str | None:
    """``same`` or ``different``, the last of the two words in the final answer of a reply; None without either."""
    words = squad_normalize(final_answer(text)).split()
    return next((word for word in reversed(words) if word in ("same", "different")), None)


def _agreement(scored: Sequence[Example], answers: Mapping[str, Prediction], right: Mapping[str, bool]) -> Score | None:
    both = [(row, answers[row.id].judged_right) for row in scored if answers[row.id].judged_right is not None]
    if not both:
        return None
    return cohen_kappa(
        [right[row.id] for row, _ in both], [bool(judgment) for _, judgment in both], [row.group for row, _ in both]
    )
