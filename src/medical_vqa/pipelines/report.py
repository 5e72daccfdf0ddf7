"""Write HTML pages about scored predictions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from medical_vqa.evaluation.reporting.audit_report import findings
from medical_vqa.evaluation.reporting.compare_report import write_comparison
from medical_vqa.evaluation.reporting.report import write_report
from medical_vqa.evaluation.statistics.calibration import DEFAULT_RISK
from medical_vqa.pipelines.inputs import SHUFFLED, display_names, require_same_rows
from medical_vqa.pipelines.runs import PAGE, require_other_file, require_outside_dataset, require_replaceable
from medical_vqa.pipelines.score import Scores
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.probe import Probe, probe_path, read_probe
from medical_vqa.training.journal import Journal


def report(scores: Scores, path: Path) -> Path:
    """Write one self-contained HTML page on scored predictions; returns its path."""
    data, model = scores.rows.data, scores.results.model
    name = model.name if model else scores.file.stem
    require_other_file(path, (scores.file, card_path(scores.file)))
    require_outside_dataset(path, data.dataset.folder)
    require_replaceable(path, PAGE, "name another file to write, and files to compare together, in Python as one list")
    write_report(
        path,
        results=scores.results,
        answered=scores.answered,
        baselines=scores.baselines,
        images=data.images,
        title=f"{name} on {data.selection.dataset}, {scores.rows.split}",
        card=model.model_dump(mode="json", exclude_none=True) if model else None,
        history=Journal(scores.file.parent).rows() or None,
        reproduce=commands(scores),
        audit=audit_of(scores),
        probe=probe_of(scores),
    )
    return path


def audit_of(scores: Scores) -> list[str]:
    """Findings of the dataset's audit, a sentence each; where there is none, that near-duplicates are not known."""
    data, selection = scores.rows.data.dataset, scores.rows.data.selection
    if data.audit is not None:
        return findings(data.audit)
    if scores.rows.split == "train" or "train" not in data.splits:
        return []
    command = shlex.join(["medical-vqa", "audit", selection.dataset, "--root", str(selection.root)])
    return [
        "This dataset was not audited: of the images that two splits share, equal files alone are known, and no "
        f"near-duplicates. Run `{command}`, and then this report again."
    ]


def probe_of(scores: Scores) -> Probe | None:
    """The probe next to a predictions file, of the same model, rows and split; None where there is none."""
    path, results = probe_path(scores.file, scores.rows.split), scores.results
    if results.model is None or not path.is_file():
        return None
    probe = read_probe(path)
    same_model = (probe.model.name, probe.model.files) == (results.model.name, results.model.files)
    same_rows = (probe.dataset.name, probe.dataset.where) == (results.dataset.name, results.dataset.where)
    return probe if same_model and same_rows and probe.dataset.manifest == results.dataset.manifest else None


def comparison_page(scores: Sequence[Scores], path: Path) -> Path:
    """Write one page that compares models over the questions all of them answered; returns its path."""
    files = [one.file for one in scores]
    require_other_file(path, (*files, *map(card_path, files)))
    require_outside_dataset(path, scores[0].rows.data.dataset.folder)
    require_replaceable(path, PAGE)
    require_same_rows(files, [one.rows for one in scores])
    models = dict(zip(display_names(files), scores, strict=True))
    first = scores[0]
    baselines = {name: answers for name, answers in first.baselines.items() if name != SHUFFLED}
    for name, one in models.items():
        if SHUFFLED in one.baselines:  # each model's own
            baselines[f"{name} {SHUFFLED}"] = one.baselines[SHUFFLED]
    write_comparison(
        path,
        models={name: one.paired for name, one in models.items()},
        baselines=baselines,
        protocols={name: one.results.protocols for name, one in models.items()},
        title=f"{len(models)} models on {first.rows.data.selection.dataset}, {first.rows.split}",
        files=[str(file) for file in files],
        notes=notes_of(scores),
    )
    return path


def notes_of(scores: Sequence[Scores]) -> list[str]:
    """The notes on scored files, each after the file's name where there are several."""
    if len(scores) == 1:
        return scores[0].notes
    names = display_names([one.file for one in scores])
    return [f"{name}: {line}" for name, one in zip(names, scores, strict=True) for line in one.notes]


def commands(scores: Scores) -> list[str]:
    """The commands that reproduce these numbers, from the dataset on."""
    selection, split, folder = scores.rows.data.selection, scores.rows.split, scores.file.parent
    dataset = [selection.dataset, "--root", str(selection.root)]
    lines = [["prepare", *dataset]]
    if split != "train":
        lines.append(["audit", *dataset])
    if (folder / "recipe.yaml").is_file():
        predict = ["predict", str(folder), "--split", split]
        lines += [["train", str(folder / "recipe.yaml")], predict, [*predict, "--shuffle-images"]]
    lines.append(["report", str(scores.file), *_report_options(scores)])
    return [shlex.join(["medical-vqa", *line]) for line in lines]


def _report_options(scores: Scores) -> list[str]:
    """The options of `medical-vqa report` that score the file as it was scored."""
    options = scores.row_options
    for facts in scores.by:
        options += ["--by", ",".join(facts)]
    if scores.risk != DEFAULT_RISK:
        options += ["--risk", f"{scores.risk:g}"]
    return options
