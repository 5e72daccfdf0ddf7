"""Tables of many models on many datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import StrPath, as_several, optional_output
from medical_vqa.api.calls import public
from medical_vqa.errors import ConfigError
from medical_vqa.io import as_path

if TYPE_CHECKING:
    from medical_vqa.evaluation.reporting.leaderboard import Board


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Tables of models that answered the same rows. ``str(leaderboard)`` is the tables as text."""

    tables: Sequence[Board]
    """One table per dataset, split, filter and rule, best model first."""
    page: Path | None
    """The HTML page; None if none was requested."""

    def __repr__(self) -> str:
        sizes = [len(table.entries) for table in self.tables]
        return f"<medical_vqa.Leaderboard with tables of {' and '.join(map(str, sizes))} models>"

    def __str__(self) -> str:
        from medical_vqa.evaluation.reporting.leaderboard import leaderboard_text

        return leaderboard_text(self.tables)


@public
def leaderboard(*results: StrPath | Sequence[StrPath], page: StrPath | None = None) -> Leaderboard:
    """Put results files of many models and datasets into tables: only equal rows under an equal rule share one.

    Args:
        results: Results files, or folders that are searched for ``results*.json`` and ``*-results.json``: one by one,
            or as one list.
        page: HTML page to write; it needs no connection.

    Returns:
        The tables, with intervals, baseline, scores without leaked rows, size, and a corrected test of every two models
        whose predictions lie next to their results.

    Raises:
        MedicalVqaError: There is no results file, or one is damaged.

    Examples:
        >>> print(mv.leaderboard("runs", page="leaderboard.html"))
    """
    from medical_vqa.pipelines.leaderboard import leaderboard as stage
    from medical_vqa.pipelines.leaderboard import leaderboard_page

    several = as_several(results)
    if not several:
        raise ConfigError("results: expected results files or folders, got none; pass one or more")
    paths = [as_path(one, "results", _results_instead(one)) for one in several]
    path = optional_output(page, "page")
    tables = stage(paths)
    return Leaderboard(tables, None if path is None else leaderboard_page(tables, paths, path))


def _results_instead(value: object) -> str:
    """What to pass in place of something that is no path to results."""
    if not hasattr(value, "results"):
        return "pass one"
    return "pass its results" if isinstance(value.results, Path) else "pass what its write() returns"
