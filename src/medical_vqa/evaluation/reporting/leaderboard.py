"""Many models on many datasets from their ``results.json``: one static page, which opens from disk.

Two scores stand in one table only if they are of the same rows under the same rule: dataset, split, filter, the
manifest's digest and the metric's signature are equal. A rank is not a result: models whose difference from the first
chance alone can explain are marked, where the predictions are there to test it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.evaluation.reporting.figures import scatter
from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.evaluation.reporting.summary import notes
from medical_vqa.evaluation.reporting.text_table import aligned
from medical_vqa.evaluation.reporting.wording import bounds, percent
from medical_vqa.evaluation.statistics.comparison import SIGNIFICANCE, Comparison
from medical_vqa.schema.results import MetricResult, Results


@dataclass(frozen=True, slots=True)
class Entry:
    """One model's results."""

    name: str
    """Name of the model, unique on the page."""
    results: Results
    """Its results."""
    file: Path
    """The results file."""

    @property
    def headline(self) -> MetricResult:
        """The metric that orders the table."""
        return self.results.metrics[0]

    @property
    def value(self) -> float:
        """The score that orders the table; below every score where nothing could be scored."""
        return -1.0 if self.headline.score.value is None else self.headline.score.value

    @property
    def parameters(self) -> int | None:
        """Number of parameters; None where the card states none."""
        return self.results.model.facts.parameters if self.results.model else None

    @property
    def baseline(self) -> float | None:
        """The first baseline's score on the same rows: question-only, where there are training rows."""
        return next((score.value for score in self.headline.baselines.values()), None)

    @property
    def coverage(self) -> float | None:
        """Fraction of the answers that the guards do not withhold; None where the predictions have no decisions."""
        guards = self.results.withheld
        return (guards.checked - guards.withheld) / guards.checked if guards and guards.checked else None

    @property
    def visible_score(self) -> float | None:
        """The score of the answers that the guards do not withhold; None where there is none."""
        guards = self.results.withheld
        score = guards.visible.get(self.headline.name) if guards else None
        return score.value if score else None

    @property
    def without_leaks(self) -> float | None:
        """The score without rows that training may have shown; None where none are known."""
        leaks = self.results.without_leaks
        score = leaks.scores.get(self.headline.name) if leaks else None
        return score.value if score else None


@dataclass(frozen=True, slots=True)
class Board:
    """The models that answered the same rows under the same rule, best first."""

    entries: Sequence[Entry]
    """The models, best first."""
    pairs: Sequence[Comparison] = ()
    """Every two models compared, paired by question, with Holm's correction; empty where predictions are missing."""
    untested: str = ""
    """Why the models are not compared in pairs; empty where they are."""

    @property
    def title(self) -> str:
        """Dataset, split and filter."""
        data = self.entries[0].results.dataset
        where = ", ".join(f"{fact} {value}" for fact, value in data.where.items())
        return f"{data.title or data.name}, {data.split}" + (f" ({where})" if where else "")

    @property
    def signature(self) -> str:
        """Everything that affects the numbers."""
        return self.entries[0].headline.signature

    @property
    def guarded(self) -> bool:
        """Whether the decisions of guards are known for a model."""
        return any(entry.results.withheld for entry in self.entries)

    @property
    def notes(self) -> list[str]:
        """A line for each model and reason why rows are not scored or answers are to check, after the model's name."""
        return [
            f"{entry.name}: {line}"
            for entry in self.entries
            for line in notes(entry.results.excluded, entry.results.warnings)
        ]

    def tied_with_first(self, entry: Entry) -> bool | None:
        """Whether chance alone can explain the distance to the first; None where that was not tested."""
        first = self.entries[0]
        if entry is first:
            return True
        for pair in self.pairs:
            if {pair.first, pair.second} == {first.name, entry.name}:
                return pair.holm_p >= SIGNIFICANCE
        return None

    def on_front(self, entry: Entry) -> bool:
        """Whether no other model has at least this score with fewer parameters, or more with as many."""
        size = entry.parameters
        if size is None:
            return False
        others = [other for other in self.entries if other.parameters is not None and other is not entry]
        return not any(
            (other.parameters or 0) <= size
            and other.value >= entry.value
            and ((other.parameters or 0) < size or other.value > entry.value)
            for other in others
        )


def boards(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries by comparable rows and rule, each group best first; in order of dataset, split and rule."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        data = entry.results.dataset
        where = ",".join(f"{fact}={value}" for fact, value in sorted(data.where.items()))
        key = (data.name, data.split, where, entry.headline.signature, data.manifest)
        groups.setdefault(key, []).append(entry)
    return [sorted(group, key=lambda entry: (-entry.value, entry.name)) for _, group in sorted(groups.items())]


def leaderboard_text(tables: Sequence[Board]) -> str:
    """The tables for a terminal."""
    parts = []
    for board in tables:
        label = board.entries[0].headline.label
        coverage_head = ("shown", f"{label} of the shown") if board.guarded else ()
        head = ("", "model", label, "", "n", *coverage_head, "baseline", "without leaks", "parameters")
        rows = [
            (
                str(rank),
                entry.name,
                percent(entry.headline.score.value),
                bounds(entry.headline.score.interval),
                f"{entry.headline.score.n:,}",
                *((percent(entry.coverage), percent(entry.visible_score)) if board.guarded else ()),
                percent(entry.baseline),
                percent(entry.without_leaks),
                size_text(entry.parameters),
            )
            for rank, entry in enumerate(board.entries, 1)
        ]
        table = aligned([head, *rows], left=(1,))
        parts.append("\n".join(line for line in (board.title, table, board.untested, *board.notes) if line))
    return "\n\n".join(parts)


def size_text(parameters: int | None) -> str:
    """A number of parameters for people: ``2.6 M``, ``3.4 B``; a dash where it is unknown."""
    if not parameters:
        return "-"
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.1f} {name}"
    return str(parameters)


def overview(tables: Sequence[Board]) -> list[tuple[str, list[str]]]:
    """Model -> its score on every board, for the models that are on several; a dash where it is not."""
    names: dict[str, dict[int, str]] = {}
    for number, board in enumerate(tables):
        for entry in board.entries:
            model = entry.results.model.name if entry.results.model else entry.name
            names.setdefault(model, {})[number] = percent(entry.headline.score.value)
    columns = range(len(tables))
    return [(name, [of.get(number, "-") for number in columns]) for name, of in names.items() if len(of) > 1]


def write_leaderboard(path: Path, tables: Sequence[Board], *, title: str, reproduce: Sequence[str]) -> None:
    """Write the page, which appears complete or not at all.

    Args:
        path: The HTML file.
        tables: The tables.
        title: Title of the page.
        reproduce: Commands that write the page again.

    Raises:
        DataError: The file cannot be written.
    """
    write_page(
        path,
        "leaderboard.html.j2",
        title=title,
        boards=tables,
        overview=overview(tables),
        size_text=size_text,
        pareto=pareto_figure,
        significance=SIGNIFICANCE,
        reproduce=reproduce,
    )


def pareto_figure(board: Board) -> str:
    """Score by number of parameters, models on the front filled; empty where fewer than two state their size."""
    sized = [entry for entry in board.entries if entry.parameters and entry.value >= 0]
    if len(sized) < 2:
        return ""
    points: Mapping[str, tuple[float, float, bool]] = {
        entry.name: (math.log10(entry.parameters or 1), 100 * entry.value, board.on_front(entry)) for entry in sized
    }
    return scatter(
        f"{board.entries[0].headline.label} by number of parameters", points, x_label=_size_label, x_title="parameters"
    )


def _size_label(exponent: float) -> str:
    return size_text(round(10**exponent))
