"""One self-contained HTML page about scored predictions, for someone who must decide whether to trust the model.

The page needs no other file: images are embedded (each once), styles and the small filter script are inline, and a
content security policy forbids any request. Without scripts everything is visible, only unfiltered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa import registry
from medical_vqa.data.cache.pictures import ImageSource
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.reporting import figures, probe_report, summary
from medical_vqa.evaluation.reporting.gallery import select_answers, thumbnails
from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.evaluation.reporting.published import caveat, published
from medical_vqa.evaluation.reporting.training_charts import training_charts
from medical_vqa.evaluation.statistics.confusions import confusion_table, confusions
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer, judge
from medical_vqa.schema.probe import Probe
from medical_vqa.schema.records import Prediction
from medical_vqa.schema.results import Results

_MAX_FINDINGS = 30
_MAX_CONFUSIONS = 12
_MAX_CONFUSED_ANSWERS = 8
_MIN_COVERAGE = 0.01  # the risk of a handful of answers is noise
_CONFIDENT, _UNSURE = 0.9, 0.5
_MAX_OPTIONS = 40  # a fact with more values is an identifier: nobody selects one from a list
_FACT_ORDER = ("answer_type", "modality", "content_type", "organ", "base_type", "language")


@dataclass(frozen=True, slots=True)
class ConfidenceRange:
    """How often the model is right within a range of confidence."""

    label: str
    """``at least 90 % sure``."""
    right: int
    """Number of right answers."""
    n: int
    """Number of answers."""


def write_report(
    path: Path,
    *,
    results: Results,
    answered: AnsweredQuestions,
    baselines: Mapping[str, Sequence[Prediction]],
    images: ImageSource,
    title: str,
    card: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    reproduce: Sequence[str] = (),
    audit: Sequence[str] = (),
    probe: Probe | None = None,
) -> None:
    """Write the page, which appears complete or not at all.

    Args:
        path: The HTML file.
        results: The results of the same answers, with details.
        answered: The questions with the model's answers.
        baselines: Baseline name -> its predictions; the gallery shows the first one's answers.
        images: Source of the gallery's images; one that cannot be read is left out.
        title: Title of the page.
        card: What is known about the model; nested values are shown as they are.
        history: Rows of a run's metrics.jsonl, for the training curve.
        reproduce: Commands that reproduce these numbers.
        audit: Findings of an audit of the dataset, a sentence each.
        probe: Whether the answers of the same model to the same rows depend on the picture.

    Raises:
        DataError: If the file cannot be written.
    """
    judged = judge(exact_match(), answered)
    gallery = select_answers(judged)
    baseline = next(iter(baselines), None)
    write_page(
        path,
        "report.html.j2",
        title=title,
        results=results,
        headline=summary.headline(results),
        scope=summary.scope(results),
        group_noun="images" if all(row.group == row.image_id for row in answered.examples) else "groups",
        sentences=summary.plain_words(results),
        limits=summary.limits(results),
        excluded=summary.row_lines(results.excluded),
        warnings=summary.row_lines(results.warnings),
        bundle_to_shuffle=_bundle_to_shuffle(results),
        breakdowns=sorted(results.breakdowns, key=lambda breakdown: _fact_order(breakdown.facts)),
        published=published(results.dataset.name),
        caveat=caveat(results.dataset.split),
        by_answer_type=_by_answer_type(results),
        confidence_ranges=confidence_ranges(judged),
        **_calibration_figures(results),
        gallery=gallery,
        thumbnails=thumbnails((answer.example.image_id for answer in gallery), images),
        filters=_filters(gallery),
        baseline_name=baseline,
        baseline_answers={p.id: p.answer for p in baselines[baseline]} if baseline else {},
        right=sum(answer.correct for answer in judged),
        wrong=sum(not answer.correct for answer in judged),
        findings=results.findings[:_MAX_FINDINGS],
        confusions=confusions(judged, _MAX_CONFUSIONS),
        confusion_table=confusion_table(judged, _MAX_CONFUSED_ANSWERS),
        protocols={score.protocol: registry.find("protocols", score.protocol) for score in results.protocols},
        audit=list(audit),
        probe=probe,
        probe_sentences=probe_report.sentences(probe) if probe else [],
        charts=training_charts(history or ()),
        card=card_entries(card or {}),
        reproduce=list(reproduce),
    )


def confidence_ranges(answers: Sequence[JudgedAnswer]) -> list[ConfidenceRange]:
    """How often the model is right when it is confident, when it is unsure, and between; without empty ranges."""
    ranges = (
        (f"at least {100 * _CONFIDENT:.0f} % sure", _CONFIDENT, 2.0),
        (f"{100 * _UNSURE:.0f} to {100 * _CONFIDENT:.0f} % sure", _UNSURE, _CONFIDENT),
        (f"less than {100 * _UNSURE:.0f} % sure", 0.0, _UNSURE),
    )
    rows = []
    for label, low, high in ranges:
        part = [a.correct for a in answers if a.confidence is not None and low <= a.confidence < high]
        if part:
            rows.append(ConfidenceRange(label, sum(part), len(part)))
    return rows


def card_entries(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested entries as ``outer inner`` -> text, in order, without empty ones."""
    entries: list[tuple[str, str]] = []
    for key, value in card.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, Mapping):
            entries += card_entries(value, name)
        elif value not in (None, "", [], ()):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            entries.append((name.replace("_", " "), text))
    return entries


def _calibration_figures(results: Results) -> dict[str, Any]:
    """The figures of the confidence section; None without confidence."""
    calibration = results.calibration
    if calibration is None:
        return {"histogram": None, "reliability_diagram": None, "risk_curve": None}
    points = [(100 * coverage, 100 * risk) for coverage, risk in calibration.risk_coverage if coverage >= _MIN_COVERAGE]
    x_title = "fraction of questions answered, per cent"
    mark = 100 * calibration.abstention.coverage if calibration.abstention else None
    has_curve = len(points) > 1
    return {
        "histogram": figures.confidence_histogram(calibration.bins),
        "reliability_diagram": figures.reliability_diagram(calibration.bins),
        "risk_curve": (
            figures.line_chart("Risk by coverage", {"wrong": points}, x_title=x_title, mark=mark) if has_curve else None
        ),
    }


def _filters(gallery: Sequence[JudgedAnswer]) -> dict[str, list[str]]:
    """Facts -> their values, by which the gallery can be filtered."""
    facts = sorted({fact for answer in gallery for fact in answer.example.facts}, key=lambda fact: _fact_order((fact,)))
    values = {fact: sorted({answer.example.facts.get(fact, "") for answer in gallery} - {""}) for fact in facts}
    return {fact: options for fact, options in values.items() if 1 < len(options) <= _MAX_OPTIONS}


def _by_answer_type(results: Results) -> dict[str, float | None]:
    """The first metric on open and on closed questions, as published tables split it; empty if unknown."""
    name = results.metrics[0].name
    return {
        row.levels[0].lower(): row.scores[name].value
        for breakdown in results.breakdowns
        if breakdown.facts == ("answer_type",)
        for row in breakdown.rows
    }


def _bundle_to_shuffle(results: Results) -> str:
    """The bundle to predict with shuffled images; empty if that was done, or if the model uses no image."""
    model = results.model
    if model is None or model.bundle is None or "image-shuffled" in results.metrics[0].baselines:
        return ""
    uses_image = model.family not in registry.names("models") or registry.find("models", model.family).uses_image
    return str(model.bundle) if uses_image else ""


def _fact_order(facts: Sequence[str]) -> tuple[int, int, tuple[str, ...]]:
    """Single facts first, the well-known ones in their usual order."""
    first = _FACT_ORDER.index(facts[0]) if facts[0] in _FACT_ORDER else len(_FACT_ORDER)
    return len(facts), first, tuple(facts)
