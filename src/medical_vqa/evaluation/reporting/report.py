"""One self-contained HTML page about scored predictions, for someone who must decide whether to trust the model.

The page needs nothing but itself: pictures are embedded (each once), styles and the small filter script are inline,
and a content security policy forbids any request. Without scripts everything is there, only unfiltered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa import registry
from medical_vqa.data.formats.base import ImageSource
from medical_vqa.evaluation.answers import Answered, ConfidenceBin, confidence_bins, confusion_table, confusions, judge
from medical_vqa.evaluation.reporting import figures, summary
from medical_vqa.evaluation.reporting.gallery import choose, thumbnails
from medical_vqa.evaluation.reporting.page import environment
from medical_vqa.evaluation.reporting.published import caveat, published
from medical_vqa.evaluation.results import Results, headline, scope
from medical_vqa.io import atomic_write
from medical_vqa.schema.records import Example, Prediction

_MOST_CONFUSIONS = 12
_MOST_ANSWERS = 8
_LEAST_COVERAGE = 0.01  # the risk of a handful of answers is noise
_SURE, _UNSURE = 0.9, 0.5
_MOST_OPTIONS = 40  # a fact with more values is an identifier: nobody picks one from a list
_USUAL_ORDER = ("answer_type", "modality", "content_type", "organ", "base_type", "language")


@dataclass(frozen=True, slots=True)
class Chart:
    """A training curve with its legend."""

    title: str
    """Above the figure."""
    figure: str
    """SVG."""
    legend: Sequence[tuple[str, str]]
    """(label, color), in the order of the lines; empty where there is one line."""
    marked: bool
    """Whether a line marks the epoch that was kept."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often the model is right above or below some confidence."""

    label: str
    """``at least 90 % sure``."""
    right: int
    """Right answers."""
    n: int
    """Answers."""


def write_report(
    path: Path,
    *,
    results: Results,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    baselines: Mapping[str, Sequence[Prediction]],
    images: ImageSource,
    title: str,
    card: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    reproduce: Sequence[str] = (),
    audit: Sequence[str] = (),
) -> None:
    """Write the page; it appears whole or not at all.

    Args:
        path: The HTML file.
        results: What `evaluate` made of the same examples and predictions.
        examples: The rows of the split.
        predictions: What the model answered.
        baselines: Baseline name -> its predictions, shown beside the gallery's answers.
        images: Where the gallery's pictures come from; one that cannot be read is left out.
        title: Of the page.
        card: What is known about the model; nested values are shown as they are.
        history: Rows of a run's metrics.jsonl, for the training curve.
        reproduce: Commands that make these numbers again.
        audit: What an audit of the dataset found, a sentence each.

    Raises:
        DataError: If the file cannot be written.
    """
    metric = registry.find("protocols", results.protocol.name).published_metrics()[0]
    answered = judge(metric, examples, predictions)
    shown = choose(answered)
    page = environment().get_template("report.html.j2")
    text = page.render(
        title=title,
        results=results,
        headline=headline(results),
        scope=scope(results),
        group_noun="images" if all(e.group == e.image_id for e in examples) else "groups",
        words=summary.plain_words(results),
        limits=summary.limits(results),
        not_scored=summary.not_scored(results),
        noted=summary.look_at(results),
        unshuffled=_unshuffled(results),
        breakdowns=sorted(results.breakdowns, key=lambda b: _order(b.facts)),
        published=published(results.dataset.name),
        caveat=caveat(results.dataset.split),
        ours=_open_and_closed(results),
        **_confidence(answered),
        **_calibration(results),
        **_gallery(shown, baselines, images),
        right=sum(a.right for a in answered),
        wrong=sum(not a.right for a in answered),
        confusions=confusions(answered, _MOST_CONFUSIONS),
        matrix=confusion_table(answered, _MOST_ANSWERS),
        rules={name: registry.find("protocols", name) for name in dict.fromkeys(s.protocol for s in results.protocols)},
        audit=list(audit),
        charts=training_charts(history or ()),
        card=_flat(card or {}),
        reproduce=list(reproduce),
    )
    atomic_write(path, text)


def training_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Training loss and validation scores by epoch; empty where there are fewer than two scored epochs."""
    epochs = [row for row in history if "train_loss" in row and "epoch" in row]
    if len(epochs) < 2:
        return []
    kept = [float(row["epoch"]) for row in epochs if row.get("best")]
    mark = kept[-1] if kept else None
    wanted = {
        "Training loss": {"loss": "train_loss"},
        "Validation score, per cent": {"EM": "em", "F1": "f1"},
    }
    return [chart for name, keys in wanted.items() if (chart := _chart(name, keys, epochs, mark))]


def reliability(answered: Sequence[Answered]) -> list[Reliability]:
    """How often the model is right when it is sure, when it is not, and between; empty ranges are left out."""
    ranges = (
        (f"at least {100 * _SURE:.0f} % sure", _SURE, 2.0),
        (f"{100 * _UNSURE:.0f} to {100 * _SURE:.0f} % sure", _UNSURE, _SURE),
        (f"less than {100 * _UNSURE:.0f} % sure", 0.0, _UNSURE),
    )
    found = []
    for label, low, high in ranges:
        inside = [a.right for a in answered if a.confidence is not None and low <= a.confidence < high]
        if inside:
            found.append(Reliability(label, sum(inside), len(inside)))
    return found


def _confidence(answered: Sequence[Answered]) -> dict[str, Any]:
    bins: list[ConfidenceBin] = confidence_bins(answered)
    return {
        "histogram": figures.confidence_histogram(bins) if bins else None,
        "reliability": reliability(answered),
    }


def _calibration(results: Results) -> dict[str, Any]:
    """The figures of the confidence section; None where there is no confidence."""
    found = results.calibration
    if found is None:
        return {"diagram": None, "risk_curve": None}
    points = [(100 * coverage, 100 * risk) for coverage, risk in found.curve if coverage >= _LEAST_COVERAGE]
    title = "share of questions answered, per cent"
    mark = 100 * found.abstention.coverage if found.abstention else None
    curve = figures.line_chart("Risk by coverage", {"wrong": points}, x_title=title, mark=mark) if points[1:] else None
    return {"diagram": figures.reliability_diagram(found.bins), "risk_curve": curve}


def _gallery(
    shown: Sequence[Answered], baselines: Mapping[str, Sequence[Prediction]], images: ImageSource
) -> dict[str, Any]:
    facts = sorted({fact for answer in shown for fact in answer.example.facts}, key=lambda fact: _order((fact,)))
    values = {fact: sorted({a.example.facts.get(fact, "") for a in shown} - {""}) for fact in facts}
    name = next(iter(baselines), None)
    return {
        "shown": shown,
        "pictures": thumbnails(shown, images),
        "filters": {fact: options for fact, options in values.items() if 1 < len(options) <= _MOST_OPTIONS},
        "baseline_name": name,
        "baseline_answers": {p.id: p.answer for p in baselines[name]} if name else {},
    }


def _chart(name: str, keys: Mapping[str, str], rows: Sequence[Mapping[str, Any]], mark: float | None) -> Chart | None:
    scale = 1.0 if "train_loss" in keys.values() else 100.0
    series = {
        label: [(float(row["epoch"]), scale * float(row[key])) for row in rows if row.get(key) is not None]
        for label, key in keys.items()
    }
    drawn = {label: points for label, points in series.items() if len(points) > 1}
    if not drawn:
        return None
    figure = figures.line_chart(f"{name} by epoch", drawn, x_title="epoch", mark=mark)
    legend = [(label, figures.series_color(number)) for number, label in enumerate(drawn)]
    return Chart(name, figure, legend if len(legend) > 1 else [], mark is not None)


def _open_and_closed(results: Results) -> dict[str, float | None]:
    """The first metric on open and on closed questions, as published tables split it; empty where unknown."""
    rows = [row for breakdown in results.breakdowns if breakdown.facts == ("answer_type",) for row in breakdown.rows]
    name = results.metrics[0].name
    return {row.levels[0].lower(): row.scores[name].value for row in rows}


def _unshuffled(results: Results) -> str:
    """The bundle to predict with shuffled images; empty where that was done, or where the model uses no image."""
    model = results.model
    if model is None or model.bundle is None or "image-shuffled" in results.metrics[0].baselines:
        return ""
    uses_image = model.family not in registry.names("models") or registry.find("models", model.family).uses_image
    return str(model.bundle) if uses_image else ""


def _order(facts: Sequence[str]) -> tuple[int, int, tuple[str, ...]]:
    """Single facts first, the well-known ones in their usual order."""
    first = _USUAL_ORDER.index(facts[0]) if facts[0] in _USUAL_ORDER else len(_USUAL_ORDER)
    return len(facts), first, tuple(facts)


def _flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested entries as ``outer inner`` -> text, in order; empty ones are left out."""
    found: list[tuple[str, str]] = []
    for key, value in card.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, Mapping):
            found += _flat(value, name)
        elif value not in (None, "", [], ()):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found.append((name.replace("_", " "), text))
    return found
