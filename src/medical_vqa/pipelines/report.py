"""Write HTML pages about scored predictions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.pipelines.score import Scores
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    pass


def report(scored: Scores, predictions: Path, path: Path) -> Path:
    """Write one self-contained HTML page on scored predictions; returns its path."""
    from medical_vqa.evaluation.reporting.audit_report import findings
    from medical_vqa.evaluation.reporting.report import write_report
    from medical_vqa.training.journal import Journal

    name = scored.results.model.name if scored.results.model else predictions.stem
    history = Journal(predictions.parent).rows()
    write_report(
        path,
        results=scored.results,
        examples=scored.examples,
        predictions=scored.predictions,
        baselines=scored.baselines,
        images=scored.data.images,
        title=f"{name} on {scored.data.selection.dataset}, {scored.split}",
        card=scored.results.model.model_dump(mode="json", exclude_none=True) if scored.results.model else None,
        history=history or None,
        reproduce=commands(scored, predictions),
        audit=findings(scored.data.dataset.audit) if scored.data.dataset.audit else (),
    )
    return path


def commands(scored: Scores, predictions: Path) -> list[str]:
    """How to make these numbers again, from the dataset on."""
    folder, where = predictions.parent, f"--root {scored.data.selection.root}"
    made = [f"medical-vqa prepare {scored.data.selection.dataset} {where}"]
    made += [f"medical-vqa audit {scored.data.selection.dataset} {where}"] if scored.split != "train" else []
    if (folder / "recipe.yaml").is_file():
        again = f"medical-vqa predict {folder} --split {scored.split}"
        made += [f"medical-vqa train {folder / 'recipe.yaml'}", again, f"{again} --shuffle-images"]
    words = ["medical-vqa", "report", str(predictions), *scored.options]
    return [*made, shlex.join(words)]


def comparison_page(scored: Sequence[Scores], files: Sequence[Path], path: Path) -> Path:
    """Write one page that compares models over the questions all of them answered; returns its path."""
    from medical_vqa.evaluation.reporting.compare_report import write_comparison
    from medical_vqa.pipelines.inputs import AnsweredRows, display_names, require_same_rows

    require_same_rows(files, [AnsweredRows(one.data, one.split) for one in scored])
    models = {name: one.predictions for name, one in zip(display_names(files), scored, strict=True)}
    write_comparison(
        path,
        examples=scored[0].examples,
        models=models,
        baselines=shared_baselines(dict(zip(models, scored, strict=True))),
        protocols={name: one.results.protocols for name, one in zip(models, scored, strict=True)},
        title=f"{len(models)} models on {scored[0].data.selection.dataset}, {scored[0].split}",
        files=[str(file) for file in files],
    )
    return path


def shared_baselines(scored: Mapping[str, Scores]) -> dict[str, list[Prediction]]:
    """Baselines of the questions once, and of each model its own: what it says about shuffled images."""
    from medical_vqa.pipelines.inputs import SHUFFLED

    baselines = {name: given for name, given in next(iter(scored.values())).baselines.items() if name != SHUFFLED}
    own = {f"{name} {SHUFFLED}": one.baselines[SHUFFLED] for name, one in scored.items() if SHUFFLED in one.baselines}
    return baselines | own
