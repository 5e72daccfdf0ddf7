"""The course of a training run as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medical_vqa.evaluation.reporting import figures

_CHARTS: tuple[tuple[str, float, Mapping[str, str]], ...] = (  # title, scale, label of a line -> its key
    ("Training loss", 1.0, {"loss": "train_loss"}),
    ("Validation score, per cent", 100.0, {"EM": "em", "F1": "f1"}),
)


@dataclass(frozen=True, slots=True)
class Chart:
    """A training curve with its legend."""

    title: str
    """Title above the figure."""
    figure: str
    """The figure as SVG."""
    legend: Sequence[tuple[str, str]]
    """(label, color), in the order of the lines; empty for one line."""
    marked: bool
    """Whether a line marks the epoch of the selected checkpoint."""


def training_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Training loss and validation scores by epoch; empty with fewer than two scored epochs."""
    epochs = [row for row in history if "train_loss" in row and "epoch" in row]
    if len(epochs) < 2:
        return []
    best = [float(row["epoch"]) for row in epochs if row.get("best")]
    mark = best[-1] if best else None
    charts = []
    for title, scale, keys in _CHARTS:
        series = {
            label: [(float(row["epoch"]), scale * float(row[key])) for row in epochs if row.get(key) is not None]
            for label, key in keys.items()
        }
        lines = {label: points for label, points in series.items() if len(points) > 1}
        if lines:
            figure = figures.line_chart(f"{title} by epoch", lines, x_title="epoch", mark=mark)
            legend = [(label, figures.series_color(number)) for number, label in enumerate(lines)]
            charts.append(Chart(title, figure, legend if len(legend) > 1 else [], mark is not None))
    return charts
