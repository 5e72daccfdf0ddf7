"""Judge answers by a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import (
    StrPath,
    as_columns,
    as_predictions,
    as_selection,
    optional_facts,
    optional_output,
    optional_split,
)
from medical_vqa.api.calls import public

if TYPE_CHECKING:
    from medical_vqa.pipelines.judge import Judged


@public
def judge(
    predictions: StrPath,
    judge_model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    allow_http: bool = False,
    concurrency: int | None = None,
    out: StrPath | None = None,
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> Judged:
    """Ask a language model whether each answer says the same as its reference, in both orders of the two.

    Args:
        predictions: What `predict` returned, or a predictions file, also of another program.
        judge_model: The judge: ``openai:MODEL`` and the like, or a name in ``models.yaml``.
        base_url: Address of its endpoint, up to and with ``/v1``.
        api_key: Its key; by default from the environment.
        api_key_env: Environment variable that holds the key.
        allow_http: Whether the key may travel without encryption.
        concurrency: Requests at once.
        out: Predictions file with judgments; by default ``judged-...jsonl`` next to the predictions.
        split: As in `score`.
        columns: As in `score`.
        dataset: As in `score`.
        root: As in `score`.
        where: As in `score`.

    Returns:
        The file, the judge's number next to exact match, how many judgments depend on the order of the two answers, and
        the agreement with judgments that the file had, of another judge or of people.

    Raises:
        MedicalVqaError: As in `score`, or the judge cannot be reached; judgments so far are kept.

    Examples:
        >>> print(mv.judge("runs/demo/predictions-validation.jsonl", "ollama:qwen3"))
    """
    from medical_vqa.pipelines.judge import judge as stage

    return stage(
        as_predictions(predictions),
        judge_model,
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        columns=as_columns(columns),
        base_url=base_url,
        api_key=api_key,
        api_key_env=api_key_env,
        allow_http=allow_http,
        concurrency=concurrency,
        out=optional_output(out, "out"),
    )
