"""Scores under published protocols as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from medical_vqa import registry
from medical_vqa.evaluation.protocols.base import Protocol
from medical_vqa.evaluation.reporting.text_table import aligned
from medical_vqa.evaluation.reporting.wording import bounds, percent
from medical_vqa.schema.results import ProtocolScore


def protocol_table(scores: Sequence[ProtocolScore]) -> str:
    """The scores, and below them the source of each rule and what its defects change."""
    rows = [("protocol", "number", "as published", "", "baseline", "repaired", "", "rows", "changed")]
    names: list[str] = []
    for score in scores:
        is_first = score.protocol not in names
        if is_first:
            names.append(score.protocol)
        published, repaired = score.published, score.repaired
        rows.append(
            (
                score.protocol if is_first else "",
                score.label,
                percent(published.value),
                bounds(published.interval) if published.value is not None else "",
                percent(score.baseline),
                percent(repaired.value if repaired else None),
                bounds(repaired.interval) if repaired and repaired.value is not None else "",
                rows_counted(score),
                "" if score.changed is None else f"{score.changed:,}",
            )
        )
    return "\n".join([aligned(rows, left=(0, 1)), "", *_sources(names, scores)])


def rows_counted(score: ProtocolScore) -> str:
    """The rows behind the published number, and behind the repaired one if those differ: ``375 -> 631``."""
    published = score.published.n
    repaired = score.repaired.n if score.repaired else published
    return f"{published:,}" if repaired == published else f"{published:,} \N{RIGHTWARDS ARROW} {repaired:,}"


def _sources(names: Sequence[str], scores: Sequence[ProtocolScore]) -> list[str]:
    lines = []
    for name in names:
        protocol: Protocol = registry.find("protocols", name)
        lines.append(f"{name}: {protocol.citation}")
        if not all(score.published_here for score in scores if score.protocol == name):
            lines.append("  - its authors publish no number on this dataset: nothing compares with these")
        defects = dict.fromkeys(score.defect for score in scores if score.protocol == name)
        lines += [f"  - {sentence}" for sentence in [*defects, protocol.caveat] if sentence]
    return lines
