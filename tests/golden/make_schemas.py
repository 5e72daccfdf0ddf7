"""Writes the published JSON Schemas, src/medical_vqa/schema/json/*.schema.json, from the types; run after a change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medical_vqa.data.prepared.manifest import Manifest
from medical_vqa.schema.audit import Audit
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.prediction_card import PredictionCard
from medical_vqa.schema.probe import Probe
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Results
from medical_vqa.schema.selection import Selection

FOLDER = Path(__file__).parents[2] / "src/medical_vqa/schema/json"
KINDS: Mapping[str, Any] = {
    "audit": Audit,
    "bundle-card": BundleCard,
    "evidence": Evidence,
    "example": Example,
    "manifest": Manifest,
    "prediction": Prediction,
    "prediction-card": PredictionCard,
    "probe": Probe,
    "results": Results,
    "selection": Selection,
}


def texts() -> dict[str, str]:
    """File name -> text of every published schema."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": json.dumps(dialect | schema_of(kind), indent=2) + "\n" for name, kind in KINDS.items()
    }


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of what is written, with the field docstrings as descriptions."""
    return TypeAdapter(kind).json_schema(mode="serialization")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
