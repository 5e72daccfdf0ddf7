"""How far a score can be trusted: models compared, datasets audited, confidence calibrated.

These stages stand on those of `pipelines.py` and, like them, talk through files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa import pipelines
from medical_vqa.errors import DataError
from medical_vqa.records import Split

if TYPE_CHECKING:
    from medical_vqa.data.audit import Audit
    from medical_vqa.data.selection import Selection
    from medical_vqa.evaluation.calibration import Calibration
    from medical_vqa.evaluation.compare import Comparison
    from medical_vqa.models.served import Endpoint, Usage
    from medical_vqa.pipelines import Scored

Counter = Callable[[int, int], None]


def compare(
    files: Sequence[Path],
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare prediction files of the same rows, every two of them, under SQuAD v2's EM and F1.

    Raises `DataError` when their cards say that they answer different rows.
    """
    from medical_vqa.evaluation.compare import compare as stage
    from medical_vqa.evaluation.inputs import asked_rows, names, read_answers, refuse_other_rows
    from medical_vqa.evaluation.protocols import find_protocol

    asked = [asked_rows(path, selection, split) for path in files]
    refuse_other_rows(files, asked)
    examples = asked[0][0].rows(asked[0][1])
    models = {name: read_answers(path, columns, examples) for name, path in zip(names(files), files, strict=True)}
    return [pair for metric in find_protocol("squad_v2").metrics() for pair in stage(metric, examples, models)]


def audit(name: str, root: Path, *, look: bool = True, progress: Counter | None = None) -> Audit:
    """Look for leaks, twins and contradictions in a prepared dataset; keeps ``audit.json`` in its folder."""
    from medical_vqa.data.audit import AUDIT_NAME
    from medical_vqa.data.audit import audit as look_into
    from medical_vqa.data.files import write_whole
    from medical_vqa.data.prepared import PreparedDataset

    prepared = PreparedDataset(root, name)
    found = look_into(prepared, look=look, progress=progress)
    if look:
        write_whole(prepared.folder / AUDIT_NAME, (found.model_dump_json(indent=1) + "\n").encode())
    return found


def calibrate(predictions: Path, *, risk: float) -> Calibration:
    """Fit temperature and abstention threshold on validation predictions, and keep both in the model's bundle.

    Raises `DataError` when the predictions have no confidence or are of another split, `BundleError` when the bundle
    that made them is gone.
    """
    from medical_vqa.models.bundle import read_card, update_card
    from medical_vqa.models.temperature import warmed

    scored = pipelines.score(predictions, risk=risk)
    found = scored.results.calibration
    if scored.split != "validation":
        raise DataError(
            f"{predictions} answers {scored.split}; a temperature is fitted on validation rows: predict them"
        )
    if found is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    folder = Path(scored.results.model.get("bundle", ""))
    card = read_card(folder)
    when = found.abstention
    kept = {
        "temperature": round(found.temperature, 4),
        "fitted_on": f"{scored.selection.dataset} validation, {found.n:,} answers",
        "risk": risk,
        "threshold": round(warmed(when.threshold, found.temperature), 4) if when else None,
        "coverage": round(when.coverage, 4) if when else None,
    }
    update_card(folder, dataclasses.replace(card, calibration=kept))
    return found


def audit_page(found: Audit, root: Path, path: Path) -> Path:
    """Write an audit as one HTML page with the pictures that are shared; returns its path."""
    from medical_vqa.data.prepared import PreparedDataset
    from medical_vqa.evaluation.audit_report import write_audit

    write_audit(path, found, PreparedDataset(root, found.dataset))
    return path


def comparison_page(scored: Sequence[Scored], files: Sequence[Path], path: Path) -> Path:
    """Write one page that compares models over the questions all of them answered; returns its path."""
    from medical_vqa.evaluation.compare_report import write_comparison
    from medical_vqa.evaluation.inputs import names, refuse_other_rows

    refuse_other_rows(files, [(one.selection, one.split, {}) for one in scored])
    models = {name: one.predictions for name, one in zip(names(files), scored, strict=True)}
    write_comparison(
        path,
        examples=scored[0].examples,
        models=models,
        floors=scored[0].floors,
        protocols={name: one.results.protocols for name, one in zip(models, scored, strict=True)},
        title=f"{len(models)} models on {scored[0].selection.dataset}, {scored[0].split}",
        files=[str(file) for file in files],
    )
    return path


def predict_served(
    endpoint: Endpoint,
    selection: Selection,
    split: Split,
    *,
    out: Path,
    api_key: str = "",
    concurrency: int = 8,
    progress: Counter | None = None,
) -> tuple[Path, Usage]:
    """Let a served model answer a split; returns the predictions' path and what was spent, earlier tries included.

    Cut short, it goes on where it stopped. What was spent is kept in ``….usage.json`` beside the predictions.
    """
    from medical_vqa.evaluation import predict as stage
    from medical_vqa.models.model import Decoding
    from medical_vqa.models.served import Served

    model = Served(endpoint, api_key=api_key, concurrency=concurrency)
    about = {
        "model": {"name": endpoint.model, "family": model.family, "model": model.describe()},
        "selection": selection.to_json(),
        "split": split,
        "manifest": selection.open().manifest.digest,
    }
    spent = out.with_name(out.name.removesuffix(".jsonl") + ".usage.json")
    asked = pipelines.queries(selection, selection.rows(split), model)
    try:
        stage.predict(
            model, asked, decoding=Decoding(), path=out, card=about, batch_size=4 * concurrency, progress=progress
        )
    finally:
        model.close()
        add_usage(spent, model.usage)
    return out, model.usage


def add_usage(path: Path, usage: Usage) -> None:
    """Add what was spent to what stands in the file."""
    import json

    from medical_vqa.data.files import write_whole

    before: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, n in before.items():
        setattr(usage, name, getattr(usage, name) + n)
    write_whole(path, (json.dumps(usage.to_json(), indent=2) + "\n").encode())
