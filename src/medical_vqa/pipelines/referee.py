"""Examine a claimed score: every protocol on the predictions it is said to come from."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.reporting.referee import Referee, examine, write_referee_page
from medical_vqa.pipelines.runs import require_other_file, require_outside_dataset
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
    selection = scores.rows.data.selection
    where = [part for fact, value in selection.where.items() for part in ("--where", f"{fact}={value}")]
    rows = ["--dataset", selection.dataset, "--root", str(selection.root), "--split", scores.rows.split, *where]
    claim = ["--claim", f"{result.claim:.{result.decimals}f}"]
    command = shlex.join(["medical-vqa", "referee", str(scores.file), *claim, *rows])
    title = f"A claim of {result.claim:.{result.decimals}f} on {selection.dataset}, {scores.rows.split}"
    write_referee_page(path, result, title=title, reproduce=[f"medical-vqa audit {selection.dataset}", command])
    return path
