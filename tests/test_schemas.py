"""The published JSON Schemas, and what is said about a card that is wrong."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from medical_vqa.data.audit.audit import audit
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import BundleError, DataError
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.schema.audit import AUDIT_NAME, write_audit
from medical_vqa.schema.bundle_card import BundleCard, ModelFacts, read_bundle_card, write_bundle_card
from medical_vqa.schema.prediction_card import (
    AnsweringModel,
    PredictionCard,
    card_path,
    read_prediction_card,
    write_prediction_card,
)
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.selection import Selection


def schema(name: str) -> Any:
    return json.loads((files("medical_vqa.schema") / "json" / f"{name}.schema.json").read_text(encoding="utf-8"))


def test_the_published_schemas_are_those_of_the_types():
    spec = importlib.util.spec_from_file_location("make", Path(__file__).parent / "golden" / "make_schemas.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    published = {path.name: path.read_text(encoding="utf-8") for path in script.FOLDER.iterdir()}
    assert published == script.texts()


def test_every_property_of_every_schema_is_described():
    def undescribed(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in undescribed(item, path)]
        if not isinstance(node, dict):
            return []
        properties = node.get("properties", {}).items()
        lacking = [f"{path}.{key}" for key, value in properties if not {"description", "$ref"} & value.keys()]
        return lacking + [name for key, value in node.items() for name in undescribed(value, f"{path}.{key}")]

    folder = files("medical_vqa.schema") / "json"
    assert not [name for path in folder.iterdir() for name in undescribed(json.loads(path.read_text()), path.name)]


def test_the_shipped_card_follows_its_schema_and_is_written_as_it_was_read(tmp_path):
    text = (shipped_bundle() / "card.json").read_text(encoding="utf-8")
    jsonschema.validate(json.loads(text), schema("bundle-card"))
    write_bundle_card(tmp_path, read_bundle_card(shipped_bundle()))
    assert (tmp_path / "card.json").read_text(encoding="utf-8") == text


def test_files_of_a_prepared_dataset_follow_their_schemas(root, tmp_path):
    dataset = PreparedDataset.open("slake-mini", root)
    write_audit(tmp_path, audit(dataset, compare_images=False))
    for name, path in (("manifest", dataset.folder / "manifest.json"), ("audit", tmp_path / AUDIT_NAME)):
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema(name))
    with (dataset.folder / "validation.jsonl").open(encoding="utf-8") as lines:
        jsonschema.validate(json.loads(next(lines)), schema("example"))


@pytest.mark.slow
def test_files_of_a_run_follow_their_schemas(run):
    jsonschema.validate(json.loads((run / "bundle" / "card.json").read_text()), schema("bundle-card"))
    predictions = run / "predictions-validation.jsonl"
    jsonschema.validate(json.loads(card_path(predictions).read_text()), schema("prediction-card"))
    for line in predictions.read_text(encoding="utf-8").splitlines():
        jsonschema.validate(json.loads(line), schema("prediction"))


def test_unknown_keys_are_refused_by_the_schemas_of_rows_too():
    example = Example("a", "i", "Where?", ("here",), "g", {"modality": "CT"}).to_json()
    prediction = Prediction("a", "here", "here", 0.5, (("there", 0.2),)).to_json()
    for name, row in (("example", example), ("prediction", prediction)):
        jsonschema.validate(row, schema(name))
        with pytest.raises(jsonschema.ValidationError, match="color"):
            jsonschema.validate(row | {"color": "red"}, schema(name))


CARD = BundleCard(family="majority", name="m", facts=ModelFacts.of({"answers": 3, "sizes": (1, 2)}))


def test_a_family_may_report_facts_of_its_own(tmp_path):
    write_bundle_card(tmp_path, CARD)
    assert read_bundle_card(tmp_path) == CARD
    assert CARD.facts.model_extra == {"sizes": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "has format 1 and this version of medical-vqa reads format 2"),
        ({"format": None}, "has format None"),
        ({"color": "red"}, "unknown key 'color'; the keys there are calibration, checkpoint_selection"),
        ({"calibraton": None}, r"unknown key 'calibraton'; did you mean 'calibration'\?"),
        ({"decoding": {"beam": 4}}, r"unknown key 'decoding.beam'; did you mean 'beams'\?"),
        ({"decoding": {"beams": 1}}, "decoding.beams: expected a whole number from 2 to 64, got 1"),
        (
            {"calibration": {"risk": 0.1}},
            r"missing key 'calibration.temperature'.*; missing key 'calibration.fitted_on'",
        ),
        ({"family": 3}, "family: expected text, got 3"),
        ({"files": [1]}, r"files: expected keys whose values are text, got \[1\]"),
        ({"files": {"a": 1}}, "files.a: expected text, got 1"),
    ],
)
def test_each_way_a_card_can_be_wrong_is_one_sentence(tmp_path, change, message):
    content = CARD.model_dump(mode="json") | change
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message) as error:
        read_bundle_card(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("or install the version of medical-vqa that wrote it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b'{\n"format": NaN}', "is not JSON .NaN is no number in JSON.;"),
        (b'{"format": 1e999}', "is not JSON .the number 1e999 is too large.;"),
        (b'{"format": 1,\n}', "is not JSON .* in line 2.;"),
        (b'{"format": ' + b"[" * 100_000, "is not JSON .lists or objects nested too deeply.;"),
        (b"\xef\xbb\xbf{}", "has no format and this version"),
        (b"[]", "expected a JSON object, got a list"),
        (b"null", "expected a JSON object, got null"),
        (b"{}", "has no format and this version"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_card_is_one_sentence(tmp_path, content, message):
    predictions = tmp_path / "predictions-test.jsonl"
    with pytest.raises(DataError, match=r"no predictions at .*predictions-test\.jsonl"):
        read_prediction_card(predictions)
    predictions.touch()
    with pytest.raises(DataError, match=r"has no card predictions-test\.card\.json next to it"):
        read_prediction_card(predictions)
    card_path(predictions).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_prediction_card(predictions)
    assert "name the rows with --dataset and --split" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prediction_card_is_read_as_it_was_written(tmp_path):
    card = PredictionCard(
        model=AnsweringModel.of_bundle(CARD, tmp_path),
        selection=Selection(dataset="mine", root=tmp_path, where={"language": "en"}, validation=None),
        split="validation",
        manifest="0" * 64,
    )
    write_prediction_card(tmp_path / "p.jsonl", card)
    assert read_prediction_card(tmp_path / "p.jsonl") == card
