"""A probe of the shipped model from the command line to the report, and what stops it."""

import dataclasses
import json
import re

import pytest
from click.testing import CliRunner

import medical_vqa as mv
from medical_vqa.cli import cli
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import DataError
from medical_vqa.models.baselines import QuestionLookup
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.probe import probe
from medical_vqa.schema.probe import read_probe
from medical_vqa.schema.selection import Selection


@pytest.fixture(scope="module")
def written(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "probe-validation.json"
    return mv.probe("shipped", dataset="slake-mini", root=root, out=out, limit=3, progress=False)


def test_a_probe_writes_numbers_a_page_and_every_answer(written):
    assert read_probe(written.path) == written.probe
    assert written.probe.images == 3 < written.probe.images_of
    lines = written.answers.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + written.probe.answers
    page = written.page.read_text(encoding="utf-8")
    assert written.probe.headline in page
    assert "Cite and reproduce" in page
    assert not re.search(r"(?:src|href)=\"https?://", page)


def test_a_probe_with_numbers_that_no_scoring_gives_is_refused(written, tmp_path):
    content = json.loads(written.path.read_text(encoding="utf-8"))
    content["groups"][0]["accuracy"]["value"] = 1.7
    content["groups"][0]["benefit"]["value"] = -0.01 + content["groups"][0]["benefit"]["interval"]["low"]
    (tmp_path / "probe-validation.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"groups\[0\]\.accuracy\.value: .* got 1\.7; .*run `medical-vqa probe`"
    ) as error:
        read_probe(tmp_path / "probe-validation.json")
    assert "groups[0].benefit: expected a value inside its interval" in str(error.value)


def test_a_probe_says_that_its_images_were_learned(written, run, root, tmp_path):
    assert written.probe.images_learned == 3  # by the model that ships
    for split, learned in (("validation", 0), ("train", 2)):
        out = tmp_path / split / "probe.json"
        asked = mv.probe(run, dataset="slake-mini", root=root, split=split, out=out, limit=2, progress=False)
        assert asked.probe.images_learned == learned
        assert ("trained on 2 of these 2 images" in asked.page.read_text(encoding="utf-8")) == (learned > 0)


def test_the_same_probe_again_asks_nothing_and_a_larger_one_only_what_is_new(written, root):
    loaded = load("shipped")
    count = []
    answer = loaded.model.answer

    def counted(queries, decoding):
        count.append(len(queries))
        return answer(queries, decoding)

    loaded.model.answer = counted
    selection = Selection(dataset="slake-mini", root=root)
    again = probe(loaded, split="validation", out=written.path, selection=selection, limit=3)
    assert (count, again.probe) == ([], written.probe)
    larger = probe(loaded, split="validation", out=written.path, selection=selection, limit=4)
    assert sum(count) == larger.probe.answers - written.probe.answers > 0


def test_an_interrupted_probe_resumes_and_one_of_other_rows_starts_again(written, root, tmp_path):
    out = tmp_path / "probe-validation.json"
    answers = tmp_path / "probe-validation.answers.jsonl"
    lines = written.answers.read_text(encoding="utf-8").splitlines(keepends=True)
    answers.write_text("".join(lines[:20]) + lines[20][:10], encoding="utf-8")
    resumed = mv.probe("shipped", dataset="slake-mini", root=root, out=out, limit=3, progress=False)
    assert resumed.probe == written.probe
    answers.write_text('{"probe": "another"}\n', encoding="utf-8")
    assert mv.probe("shipped", dataset="slake-mini", root=root, out=out, limit=3, progress=False).probe == written.probe


def test_the_command_prints_the_result_and_json(written, root):
    arguments = ["probe", "shipped", "--dataset", "slake-mini", "--root", str(root), "--limit", "3"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(written.path), "--json"])
    assert json.loads(done.stdout)["headline"] == written.probe.headline


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "at least one image"),
        ({"dataset": "none"}, "none"),
        ({"out": "probe.html"}, "the name of the page"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(root, changes, message):
    with pytest.raises(mv.MedicalVqaError, match=message):
        mv.probe("shipped", **({"dataset": "slake-mini", "root": root} | changes))


def test_a_model_without_pictures_uses_none(root, tmp_path):
    selection = Selection(dataset="slake-mini", root=root)
    baseline = QuestionLookup.fit([row for row in SelectedDataset.open(selection).rows("train") if row.answers])
    loaded = load("shipped")
    card = loaded.card.model_copy(update={"name": "question-lookup"})
    loaded = dataclasses.replace(loaded, model=baseline, card=card)
    out = tmp_path / "probe-validation.json"
    written = probe(loaded, split="validation", out=out, selection=selection, limit=2)
    assert written.probe.groups[0].uses_image.value == 0.0


def test_a_report_shows_the_probe_of_the_same_model_next_to_the_predictions(written, root, tmp_path):
    predictions = mv.predict(
        "shipped", dataset="slake-mini", root=root, out=tmp_path / "predictions-validation.jsonl", progress=False
    )
    page = mv.report(predictions, tmp_path / "without.html").page.read_text(encoding="utf-8")
    assert "Does it use the image?" not in page
    (tmp_path / "probe-validation.json").write_bytes(written.path.read_bytes())
    page = mv.report(predictions, tmp_path / "with.html").page.read_text(encoding="utf-8")
    assert written.probe.headline in page


def test_predictions_carry_what_the_guards_decide_and_keep_the_answers_and_scores(root, tmp_path):
    arguments = {"dataset": "slake-mini", "root": root, "progress": False}
    plain = mv.predict("shipped", out=tmp_path / "plain.jsonl", **arguments)
    guarded = mv.predict("shipped", out=tmp_path / "guarded.jsonl", guards=True, **arguments)
    assert all("guards" not in json.loads(line) for line in plain.path.read_text().splitlines())
    for one, other in zip(plain.read(), guarded.read(), strict=True):
        assert dataclasses.replace(other, guards=None) == dataclasses.replace(one, alternatives=other.alternatives)
        assert one.alternatives == other.alternatives
    records = [prediction.guards for prediction in guarded.read()]
    assert {record.withheld for record in records} == {True, False}
    assert all((record.reason_code is not None) == record.withheld for record in records)
    assert {record.source for record in records} <= {"picture", "usual", "knowledge"}
    assert all(0 <= record.image_dependence <= 1 for record in records)
    assert mv.score(plain).em == mv.score(guarded).em
