"""Writes src/medical_vqa/evaluation/results.schema.json from the types; run after a change of `Results`."""

from __future__ import annotations

import json
from pathlib import Path

from medical_vqa.evaluation.results import Results

SCHEMA = Path(__file__).parents[2] / "src/medical_vqa/evaluation/results.schema.json"


def schema_text() -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | Results.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
