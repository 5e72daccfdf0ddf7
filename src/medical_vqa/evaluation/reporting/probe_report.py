"""A probe in words and as one self-contained HTML page, with what is needed to cite it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.schema.probe import Probe, ProbeGroup
from medical_vqa.schema.results import Score
from medical_vqa.text import per_cent

_TITLES: Mapping[str, str] = {
    "all": "All questions",
    "finding": "Finding questions",
    "answer_type": "By form of the answer",
    "content_type": "By content",
    "modality": "By modality",
}


def headline(groups: Sequence[ProbeGroup]) -> str:
    """The result in one sentence: ``Uses the image for 61 % [57, 65] of open and 22 % of finding questions.``"""
    by_name = {(group.fact, group.value.lower()): group.uses_image for group in groups}
    parts = [
        f"{_with_interval(by_name[key])} of {noun}"
        for key, noun in (
            (("answer_type", "open"), "open"),
            (("answer_type", "closed"), "closed"),
            (("finding", "yes"), "finding"),
        )
        if key in by_name
    ]
    parts = parts or [f"{_with_interval(by_name['all', ''])} of all"]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Uses the image for {listed} questions."


def _with_interval(score: Score) -> str:
    if score.value is None:
        return "no measured part"
    low, high = score.interval.low, score.interval.high
    bounds = f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None and high is not None else ""
    return f"{per_cent(score.value).removesuffix('%')} %{bounds}"


def sentences(probe: Probe) -> list[str]:
    """What the numbers mean, for someone who has not read the method."""
    everything = probe.groups[0]
    lines = []
    if probe.images_learned:
        lines.append(
            f"By its card the model was trained on {probe.images_learned:,} of these {probe.images:,} images: probe it "
            "on others to know what its answers to new images depend on."
        )
    if everything.benefit.value is not None:
        bound = everything.benefit.interval.low
        helps = bound is not None and bound > 0
        lines.append(
            f"The right picture is worth {100 * everything.benefit.value:+.1f} points of accuracy against other "
            f"pictures of the same type{'' if helps else ', which the interval does not tell apart from none'}."
        )
    finding = next((group for group in probe.groups if group.fact == "finding"), None)
    if finding is not None and finding.benefit.value is not None:
        bound = finding.benefit.interval.low
        helps = bound is not None and bound > 0
        ending = "" if helps else ": no evidence that the picture helps there"
        lines.append(f"For finding questions it is worth {100 * finding.benefit.value:+.1f} points{ending}.")
    checks = (
        (probe.contradictions, "of the questions and their opposites get answers that exclude each other"),
        (probe.paraphrases, "of the questions get another answer in other words"),
        (probe.sides, "of the questions with a side do not get the mirrored answer about the mirrored picture"),
    )
    lines += [
        f"{_with_interval(check.score)} {ending} (n = {check.score.n:,})."
        for check, ending in checks
        if check.score.value is not None
    ]
    return lines


def citation(probe: Probe) -> str:
    """One line that a paper can use."""
    files = sorted(probe.model.files.items())
    weights = f", weights {files[-1][1][:12]}" if files else ""
    return (
        f"{probe.model.name} ({probe.model.family}{weights}) probed with medical-vqa {probe.version} on "
        f"{probe.dataset.title or probe.dataset.name}, {probe.dataset.split} split, {probe.questions:,} questions "
        f"about {probe.images:,} images, seed {probe.seed}, manifest {probe.dataset.manifest[:12]}."
    )


def write_probe_page(path: Path, probe: Probe) -> None:
    """Write the page, which appears complete or not at all; raises `DataError` if the file cannot be written."""
    sections: dict[str, list[ProbeGroup]] = {}
    for group in probe.groups:
        sections.setdefault(group.fact, []).append(group)
    write_page(
        path,
        "probe.html.j2",
        probe=probe,
        sentences=sentences(probe),
        sections=[(_TITLES[fact], fact, groups) for fact, groups in sections.items()],
        checks=[
            (
                "Contradictions",
                "A question and its opposite about the same picture, by rules: answers that exclude each other.",
                probe.contradictions,
            ),
            ("Paraphrases", "A published question in other words, written by hand: another answer.", probe.paraphrases),
            (
                "Sides",
                "Question or answer names left or right; the picture is mirrored, and left and right are exchanged in "
                "the question: the answer is not the mirrored answer.",
                probe.sides,
            ),
            ("Mirroring", "No side is named; the picture is mirrored: another answer.", probe.mirrored),
        ],
        citation=citation(probe),
        command=command(probe),
    )


def command(probe: Probe) -> str:
    """The command that reproduces the numbers."""
    model = probe.model.bundle or f"{probe.model.family}:{probe.model.name} --base-url URL"
    where = "".join(f" --where {fact}={value}" for fact, value in probe.dataset.where.items())
    limit = f" --limit {probe.images}" if probe.images < probe.images_of else ""
    return (
        f"medical-vqa probe {model} --dataset {probe.dataset.name}{where} --split {probe.dataset.split}{limit} "
        f"--seed {probe.seed}"
    )
