"""Text that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa.text import per_cent

if TYPE_CHECKING:
    from medical_vqa.evaluation.results import Results
    from medical_vqa.pipelines.ask import Answer

DISCLAIMER = "Research software: not a medical device and not for diagnosis."


def answer_lines(answer: Answer) -> list[str]:
    """An answer with its confidence and alternatives; an abstention begins with its reason."""
    lines = [str(answer)]
    if answer.abstained:
        lines.append(f"Do not rely on this: {answer.text}")
    if answer.confidence is not None:
        lines.append(f"confidence {per_cent(answer.confidence)}")
    if answer.alternatives:
        lines.append("or: " + ", ".join(f"{text} ({per_cent(value)})" for text, value in answer.alternatives))
    return lines


def protocol_table(results: Results) -> str:
    """Scores under other rules, and below the table what each rule changes and where it was published."""
    from medical_vqa import registry
    from medical_vqa.evaluation.protocols.table import table_text

    lines = ["", table_text(results.protocols), ""]
    for name in dict.fromkeys(score.protocol for score in results.protocols):
        rule = registry.find("protocols", name)
        lines.append(f"{name}: {rule.citation}")
        changes = dict.fromkeys(score.changes for score in results.protocols if score.protocol == name)
        lines += [f"  - {sentence}" for sentence in [*changes, rule.caveat] if sentence]
    return "\n".join(lines)
