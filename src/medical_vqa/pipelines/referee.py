"""Examine a claimed score: every protocol on the predictions it is said to come from."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.reporting.referee import Referee, examine, write_referee_page
from medical_vqa.pipelines.runs import PAGE, require_other_file, require_outside_dataset, require_replaceable
from medical_vqa.pipelines.score import Scores, score
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.records import Split
from medical_vqa.schema.selection import Selection

_PER_CENT = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def referee(
    predictions: Path,
    claim: str,
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    where: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Referee, Scores]:
    """Compare a claimed score with every protocol on the same predictions.

    Args:
        predictions: The predictions file, also of another program.
        claim: The claimed score in per cent, with its decimals: ``84.9``.
        selection: Rows that a file without a card answers.
        split: Split of these rows.
        where: Facts that the rows of the file's card must have in addition.
        columns: Columns of another program's file.

    Raises:
        ConfigError: The claim is no per cent.
        DataError: The file cannot be scored.
    """
    claim = claim.strip()
    value = float(claim) if _PER_CENT.fullmatch(claim) else math.inf
    if value > 100:
        raise ConfigError(f"--claim {claim!r}: expected a score in per cent, such as 84.9; write it so")
    if 0 < value < 1:
        per_cent = f"{(Decimal(claim) * 100).normalize():f}"
        raise ConfigError(f"--claim {claim!r}: expected a score in per cent, got a fraction of 1; write {per_cent}")
    decimals = len(claim.partition(".")[2])
    scores = score(
        predictions,
        selection=selection,
        split=split,
        where=where,
        protocols=registry.names("protocols"),
        columns=columns,
        details=False,
    )
    return examine(scores.results, value, decimals), scores


def referee_page(result: Referee, scores: Scores, path: Path) -> Path:
    """Write the comparison as one HTML page; returns its path."""
    require_other_file(path, (scores.file, card_path(scores.file)))
    require_outside_dataset(path, scores.rows.data.dataset.folder)
    require_replaceable(path, PAGE)
    selection = scores.rows.data.selection
    claim = f"{result.claim:.{result.decimals}f}"
    commands = [
        ["audit", selection.dataset, "--root", str(selection.root)],
        ["referee", str(scores.file), "--claim", claim, *scores.row_options],
    ]
    title = f"A claim of {claim} on {selection.dataset}, {scores.rows.split}"
    reproduce = [shlex.join(["medical-vqa", *command]) for command in commands]
    write_referee_page(path, result, title=title, reproduce=reproduce)
    return path
