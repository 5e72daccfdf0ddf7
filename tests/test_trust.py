"""The stages that say how far a score can be trusted, on a tiny model and on the command line."""

from __future__ import annotations

import html
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from medical_vqa import cli
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.joining import join
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.calibrate import calibrate
from medical_vqa.pipelines.compare import compare
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import other_images, predict
from medical_vqa.pipelines.report import report
from medical_vqa.pipelines.score import dataset_ref, score
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.records import Prediction, read_predictions, write_jsonl
from medical_vqa.schema.selection import Selection


@pytest.fixture
def mine(run, tmp_path):
    """A copy of the tiny run, to be written into."""
    folder = tmp_path / "tiny"
    shutil.copytree(run, folder)
    card = folder / "predictions-validation.card.json"
    content = json.loads(card.read_text())
    content["model"]["bundle"] = str(folder / "bundle")
    card.write_text(json.dumps(content))
    return folder


def call(*words):
    result = CliRunner().invoke(cli.cli, [*map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_shuffled_images_become_a_baseline_of_the_same_model(mine):
    path = predict(load(mine, device="cpu"), split="validation", shuffle_images=True).path
    assert path.name == "shuffled-validation.jsonl"
    predictions = mine / "predictions-validation.jsonl"
    assert list(score(predictions).baselines) == ["question-only", "majority", "image-shuffled"]
    write_jsonl(path, read_predictions(path)[:-1])  # incomplete: no baseline
    assert list(score(predictions).baselines) == ["question-only", "majority"]


def test_every_question_gets_an_image_that_is_not_its_own():
    other = other_images(["a", "a", "b", "c", "b"])
    assert sorted(other) == sorted(other.values()) == ["a", "b", "c"]
    assert all(image != replacement for image, replacement in other.items())
    with pytest.raises(DataError, match="no other to ask about"):
        other_images(["a", "a"])


@pytest.mark.slow
def test_calibrating_keeps_temperature_and_threshold_in_the_bundle_and_asking_uses_them(mine, picture):
    (before,) = ask(load(mine, device="cpu"), picture, ["Is the liver healthy?"])
    calibration = calibrate(mine / "predictions-validation.jsonl", risk=0.9)
    recorded = read_bundle_card(mine / "bundle").calibration
    assert recorded.temperature == round(calibration.temperature, 4)
    assert recorded.risk == 0.9
    loaded = load(mine, device="cpu")
    (after,) = ask(loaded, picture, ["Is the liver healthy?"])
    assert after.text == before.text
    assert after.confidence == pytest.approx(temperature_scaled(before.confidence, recorded.temperature))
    again = predict(loaded, split="validation", out=mine / "predictions-again.jsonl").path
    assert score(again).results.calibration.temperature_source.startswith("slake-mini validation")


@pytest.mark.slow
def test_calibrating_joins_once_and_computes_the_calibration_alone(mine, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("calibrating draws no bootstrap and scores no BLEU or ROUGE")

    for name in ("statistics.tally.clustered_bootstrap", "statistics.tally.Tally.score", "scoring.score_answers"):
        monkeypatch.setattr(f"medical_vqa.evaluation.{name}", refuse)
    monkeypatch.setattr("medical_vqa.evaluation.metrics.bleu.Bleu.counts", refuse)
    monkeypatch.setattr("medical_vqa.evaluation.metrics.rouge.lcs_f_measure", refuse)
    joins = []
    monkeypatch.setattr("medical_vqa.pipelines.calibrate.join", lambda *rows: joins.append(rows) or join(*rows))
    assert calibrate(mine / "predictions-validation.jsonl", risk=0.9).n == 424
    assert len(joins) == 1


@pytest.mark.slow
def test_calibrating_again_fits_the_temperature_again(mine):
    path = mine / "predictions-validation.jsonl"
    first = calibrate(path, risk=0.9)
    card = json.loads(card_path(path).read_text())
    card["calibration"] = {"temperature": 17.0, "fitted_on": "slake-mini validation, 424 answers", "risk": 0.9}
    card_path(path).write_text(json.dumps(card))
    assert calibrate(path, risk=0.9).temperature == first.temperature


def test_a_temperature_is_fitted_on_validation_predictions_with_a_confidence_only(mine):
    train = predict(load(mine, device="cpu"), split="train").path
    with pytest.raises(DataError, match="fitted on validation"):
        calibrate(train, risk=0.1)
    path = mine / "predictions-validation.jsonl"
    write_jsonl(path, [replace(one, confidence=None) for one in read_predictions(path)])
    with pytest.raises(DataError, match="gives no confidence"):
        calibrate(path, risk=0.1)


def test_files_of_other_rows_are_not_compared(mine):
    train = predict(load(mine, device="cpu"), split="train").path
    with pytest.raises(DataError, match=r"answers slake-mini validation and .* answers slake-mini train"):
        compare([mine / "predictions-validation.jsonl", train])


@pytest.mark.slow
def test_score_compare_report_calibrate_and_audit_on_the_command_line(mine, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local, baseline = mine / "predictions-validation.jsonl", tmp_path / "baseline" / "other.csv"
    baseline.parent.mkdir()
    scored = score(local)
    lines = ["qid,text", *(f"{p.id},{p.answer}" for p in scored.baselines["majority"]), "nothing,No"]
    baseline.write_text("\n".join(lines) + "\n")
    rows = ["--dataset", "slake-mini", "--root", root, "--split", "validation", "--where", "language=en"]
    table = call("score", local, "--protocol", "all")
    assert "llava_med" in table
    assert "microsoft/LLaVA-Med" in table
    mapped = call("score", baseline, *rows, "--map", "id=qid,answer=text", "--protocol", "m2i2")
    assert "prediction for a question that is not in this split with language=en (nothing)" in mapped
    shutil.copy(local, other := tmp_path / "other.jsonl")
    assert "have the same EM" in call("compare", local, other, *rows)
    page = tmp_path / "compare.html"
    call("report", local, other, *rows, "--out", page)
    assert "Is one better?" in page.read_text(encoding="utf-8")
    call("audit", "slake-mini", "--root", root, "--out", tmp_path / "audit.html", "--quick")
    call("report", local, "--by", "modality,content_type")
    text = (mine / "report-validation.html").read_text(encoding="utf-8")
    assert "The same answers under other rules" in text
    assert "Modality × Content type" in text
    assert "Reliability" in text
    assert "temperature" in call("calibrate", local, "--risk", "0.5")


def test_a_served_model_needs_a_place_and_rows():
    with pytest.raises(Exception, match="needs --base-url"):
        CliRunner().invoke(cli.cli, ["predict", "openai:m"], catch_exceptions=False)


def test_scoring_on_the_command_line_imports_no_torch(run):
    import subprocess
    import sys

    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom medical_vqa import cli\n"
        f"words = ['score', {str(run / 'predictions-validation.jsonl')!r}, '--protocol', 'all']\n"
        "r = CliRunner().invoke(cli.cli, words)\n"
        "print(r.exit_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]


STRANGE = ["", "肺", "רֵאָה", "Сancer", "a" * 5000, "\u202eyes", "yes\u0000no", "😀"]  # the C of Cancer is Cyrillic


def test_strange_texts_pass_through_every_page(mine, tmp_path):
    path = mine / "predictions-validation.jsonl"
    predictions = read_predictions(path)
    strange = [replace(one, answer=STRANGE[n % len(STRANGE)], raw="") for n, one in enumerate(predictions)]
    write_jsonl(path, strange)
    scored = score(path, protocols=["llava_med", "medvint", "helm"])
    assert scored.results.counts.scored == len(predictions)
    page = report(scored, tmp_path / "report.html")
    assert "רֵאָה" in page.read_text(encoding="utf-8")


def test_predictions_with_missing_and_extra_ids_are_counted_and_named(mine):
    path = mine / "predictions-validation.jsonl"
    predictions = read_predictions(path)
    write_jsonl(path, [*predictions[2:], Prediction("extra/1", "yes")])
    results = score(path).results
    assert {part.reason: part.n for part in results.excluded} == {
        "no prediction": 2,
        "prediction for a question that is not in this split": 1,
    }


def test_a_dataset_without_readable_images_still_has_its_report(mine, root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "slake-mini" / "images")
    path = mine / "predictions-validation.jsonl"
    scored = score(path, selection=Selection(dataset="slake-mini", root=copy, where={"language": "en"}))
    page = report(scored, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "image not available" in page


def test_a_report_says_whether_the_dataset_was_audited(mine, root, tmp_path):
    shutil.copytree(root, tmp_path / "root", ignore=shutil.ignore_patterns("audit.json"))
    selection = Selection(dataset="slake-mini", root=tmp_path / "root", where={"language": "en"})
    path, page = mine / "predictions-validation.jsonl", tmp_path / "report.html"
    report(score(path, selection=selection), page)
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "This dataset was not audited" in text
    command = text.split("Run `medical-vqa ")[1].split("`")[0]
    call(*shlex.split(command), "--out", tmp_path / "audit.html")
    report(score(path, selection=selection), page)
    text = page.read_text(encoding="utf-8")
    assert "This dataset was not audited" not in text
    assert "near-duplicates (another size" in text


def test_a_nan_confidence_in_a_file_of_ours_is_refused_with_its_row(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "answer": "b", "confidence": NaN}\n')
    with pytest.raises(DataError, match="confidence is nan"):
        read_predictions(path)


def test_names_of_files_are_the_shortest_that_differ():
    from medical_vqa.pipelines.inputs import display_names

    assert display_names([Path("/r/a/p.jsonl"), Path("/r/b/p.jsonl")]) == ["a", "b"]
    assert display_names([Path("/r/a/p.jsonl"), Path("/r/a/q.jsonl")]) == ["p", "q"]
    assert display_names([Path("/r/a/predictions-test.jsonl"), Path("/r/b/gpt.csv")]) == ["a", "gpt"]
    assert len(set(display_names([Path("/r/a/p.jsonl"), Path("/r/a/p.jsonl")]))) == 2


def test_a_model_of_ours_is_compared_with_another_programs_file_on_the_rows_of_our_card(mine, tmp_path):
    local, remote = mine / "predictions-validation.jsonl", tmp_path / "gpt.csv"
    answers = score(local).baselines["majority"]
    remote.write_text("\n".join(["qid,text", *(f"{p.id},{p.answer}" for p in answers)]) + "\n")
    output = call("compare", local, remote, "--map", "id=qid,answer=text")
    assert "EM  tiny " in output
    assert "against  gpt " in output
    assert "in four of five cases" in output
    predict(load(mine, device="cpu"), split="validation", shuffle_images=True)
    page = tmp_path / "compare.html"
    call("report", local, remote, "--map", "id=qid,answer=text", "--out", page)
    text = page.read_text(encoding="utf-8")
    assert "tiny image-shuffled baseline" in text
    assert "gpt image-shuffled" not in text


@pytest.mark.slow
def test_the_commands_of_a_report_make_the_same_numbers_again(mine, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # results about another tool's file are written here
    remote = tmp_path / "gpt model.csv"
    answers = score(mine / "predictions-validation.jsonl").baselines["majority"]
    remote.write_text("\n".join(["qid,text", *(f"{p.id},{p.answer}" for p in answers)]) + "\n")
    rows = ["--dataset", "slake-mini", "--root", root, "--split", "validation", "--where", "language=en"]
    call("report", remote, *rows, "--map", "id=qid,answer=text", "--by", "modality,organ", "--risk", "0.2")
    first = (tmp_path / "gpt model-results.json").read_text(encoding="utf-8")
    page = (tmp_path / "gpt model-report.html").read_text(encoding="utf-8")
    command = html.unescape(page.partition("<pre>")[2].partition("</pre>")[0]).strip().splitlines()[-1]
    call(*shlex.split(command)[1:])
    assert (tmp_path / "gpt model-results.json").read_text(encoding="utf-8") == first
    assert "modality" in command


def test_a_metric_by_facts_is_printed_and_the_clean_score_next_to_the_full_one(mine):
    output = call("score", mine / "predictions-validation.jsonl", "--by", "modality,answer_type", "--metric", "helm.f1")
    assert "F1 by Modality and Answer type" in output
    with pytest.raises(ConfigError, match="unknown metric"):
        call("score", mine / "predictions-validation.jsonl", "--by", "modality", "--metric", "emm")


def test_the_card_says_which_images_a_model_learned_from(mine):
    from medical_vqa.pipelines.inputs import answered_rows, trained_rows

    predictions = mine / "predictions-validation.jsonl"
    rows = answered_rows(predictions, None, None)
    assert trained_rows(rows) == frozenset()
    trained = answered_rows(predictions, None, "train")
    assert len(trained_rows(trained)) == len(trained.examples())
    assert trained_rows(replace(rows, card=None)) is None
    path = mine / "predictions-validation.card.json"
    content = json.loads(path.read_text())
    content["model"]["data"]["selection"]["dataset"] = "gone"
    path.write_text(json.dumps(content))
    assert trained_rows(answered_rows(predictions, None, None)) == frozenset()  # the card lists the images
    del content["model"]["data"]["image_digests"]  # an older card
    path.write_text(json.dumps(content))
    assert trained_rows(answered_rows(predictions, None, None)) is None


def test_a_split_that_was_drawn_here_says_so(root):
    from medical_vqa.schema.selection import Selection

    carved = Selection(dataset="slake-mini", root=root, where={"language": "en"}, validation=None)
    sampled = dataset_ref(SelectedDataset.open(carved), "validation")
    assert sampled.custom_split.startswith("Not a published split: 15% of the images")
    published = dataset_ref(SelectedDataset.open(Selection(dataset="slake-mini", root=root)), "validation")
    assert published.custom_split == ""
