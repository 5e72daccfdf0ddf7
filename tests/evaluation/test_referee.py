"""A claimed score against every protocol."""

from dataclasses import replace

from medical_vqa import registry
from medical_vqa.evaluation.reporting.referee import (
    EXCLUDED,
    POSSIBLE,
    REPRODUCED,
    examine,
    referee_text,
    write_referee_page,
)
from medical_vqa.schema.records import GuardRecord, Prediction


def scored(score, examples, predictions, baseline):
    return score(
        examples, predictions, baselines={"question-only": baseline}, published_protocols=registry.names("protocols")
    )


def test_the_rules_that_give_the_claim_come_first(examples, predictions, baseline, score):
    referee = examine(scored(score, examples, predictions, baseline), 50.0, 1)
    assert referee.candidates[0].outcome == REPRODUCED
    assert ("squad_v2", "EM") in {(c.protocol, c.label) for c in referee.reproduced_by}
    assert referee.conclusion().startswith("The claim of 50.0 is reproduced by ")
    outcomes = [candidate.outcome for candidate in referee.candidates]
    assert outcomes == sorted(outcomes, key=(REPRODUCED, POSSIBLE, EXCLUDED).index)


def test_a_claim_that_no_rule_gives_is_named_with_the_nearest_number(examples, predictions, baseline, score):
    text = referee_text(examine(scored(score, examples, predictions, baseline), 99.9, 1))
    assert "No protocol reproduces the claim of 99.9 from these predictions; the nearest is" in text


def test_what_the_guards_withhold_is_said_before_the_table(examples, predictions, baseline, score):
    guarded = [
        replace(one, guards=GuardRecord(one.id == "1", "quality" if one.id == "1" else None)) for one in predictions
    ]
    head, _, table = referee_text(examine(scored(score, examples, guarded, baseline), 50.0, 1)).partition("\n\n")
    assert "guards withhold 1 of 6 answers (quality 1) · EM " in head
    assert "squad_v2" in table


def test_the_claim_is_compared_at_its_own_precision(examples, baseline, score):
    right = [Prediction(e.id, e.answers[0] if e.id < "3" else "spleen") for e in examples]  # 2 of 6: 33.333
    results = scored(score, examples, right, baseline)
    assert examine(results, 33.3, 1).reproduced_by
    assert examine(results, 33.0, 0).reproduced_by
    assert "squad_v2" not in {c.protocol for c in examine(results, 33.0, 1).reproduced_by}


def test_the_page_has_the_table_and_asks_for_nothing(tmp_path, examples, predictions, baseline, score):
    referee = examine(scored(score, examples, predictions, baseline), 50.0, 1)
    write_referee_page(tmp_path / "r.html", referee, title="A <claim>", reproduce=["medical-vqa referee p.jsonl"])
    page = (tmp_path / "r.html").read_text()
    assert "A &lt;claim&gt;" in page
    assert "reproduces the claim" in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "medical-vqa referee p.jsonl" in page


def test_a_long_command_is_not_cut_off_in_print(tmp_path, examples, predictions, baseline, score):
    referee = examine(scored(score, examples, predictions, baseline), 50.0, 1)
    write_referee_page(tmp_path / "r.html", referee, title="A claim", reproduce=["medical-vqa referee p.jsonl"])
    printed = (tmp_path / "r.html").read_text().partition("@media print")[2]
    assert "white-space: pre-wrap" in printed
