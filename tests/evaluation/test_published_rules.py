"""Every line of every protocol against the scores that the published code gave to the same answers.

``tests/golden/protocols.json`` has made-up answers with the scores of the functions of the repositories and commits
that it names. They were computed once, outside of this project.
"""

import json
from pathlib import Path

import pytest

from medical_vqa import registry
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.protocols.base import Context
from medical_vqa.evaluation.protocols.medevalkit import published_choice
from medical_vqa.evaluation.protocols.scoring import protocol_scores, untrimmed
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "protocols.json").read_text(encoding="utf-8"))
CANDIDATES = [
    Example(f"slake/train/{n}", "i", "?", (text,), "i", {"answer_type": "OPEN"})
    for n, text in enumerate(GOLDEN["candidates"])
]


LINES = [(part, line) for part in (GOLDEN, GOLDEN["further"]) for line in sorted(part["scores"])]


@pytest.mark.parametrize(("part", "line"), LINES, ids=[line for _, line in LINES])
def test_a_line_is_what_the_published_code_computes(part, line):
    name, dataset = line.split(" ")
    different = []
    for (gold, predicted, answer_type), expected in zip(part["cases"], part["scores"][line], strict=True):
        facts = {"answer_type": answer_type, "phrase_type": "freeform"}
        example = Example(f"{dataset}/test/1", "i", "?", (gold,), "i", facts)
        score = published_score(name, predicted, example)
        if expected != "error" and not agrees(score, expected):
            different.append((gold, predicted, expected, score))
    assert different == []


@pytest.mark.parametrize("line", sorted(GOLDEN["choice_scores"]))
def test_a_line_of_multiple_choice_is_what_the_published_code_computes(line):
    name, dataset = line.split(" ")
    different = []
    for (options, letter, text), expected in zip(GOLDEN["choice_cases"], GOLDEN["choice_scores"][line], strict=True):
        facts = {"options": json.dumps(options), "choice": letter}
        example = Example(f"{dataset}/test/1", "i", "?", (options[letter], letter), "i", facts)
        score = published_score(name, text, example)
        if expected is not None and not agrees(score, expected):  # null: the code takes four choices at most
            different.append((options, letter, text, expected, score))
    assert different == []


def published_score(name, predicted, example):
    protocol_name, metric_name = name.split(".")
    protocol = registry.find("protocols", protocol_name)
    metrics = {m.name: m for m in protocol.published_metrics(Context(CANDIDATES, [example]))}
    counts = metrics[metric_name].counts(Prediction("x", predicted), example)
    return None if counts is None else counts[0]


def agrees(score, expected):
    return score is None if expected is None else score is not None and score == pytest.approx(expected, abs=2e-6)


def test_multiple_choice_is_judged_as_the_published_code_does():
    scores = [published_choice(response, choices, answer) for choices, answer, response, _ in GOLDEN["choices"]]
    assert scores == [float(right) for *_, right in GOLDEN["choices"]]


def test_the_golden_file_covers_every_protocol_but_those_without_published_code():
    lines = [*(line for _, line in LINES), *GOLDEN["choice_scores"]]
    covered = {line.split(".")[0] for line in lines}
    assert set(registry.names("protocols")) - covered == {"squad_v2", "judge"}  # its own file; no rule
    assert covered == set(GOLDEN["sources"])


def test_vqa_rad_is_closed_where_the_reference_is_yes_or_no_and_its_case_does_not_count():
    protocol = registry.find("protocols", "medevalkit")
    rows = [
        Example("vqa-rad/test/1", "i", "?", ("Yes",), "i", {"answer_type": "CLOSED"}),
        Example("vqa-rad/test/2", "i", "?", ("CT",), "i", {"answer_type": "CLOSED"}),
    ]
    closed = {m.name: m for m in protocol.published_metrics(Context((), rows))}["closed"]
    assert [closed.counts(Prediction("x", "The answer is yes."), row) for row in rows] == [(1.0, 1.0), None]


def test_rad_restruct_has_no_published_number_under_medevalkit():  # its loader asks one question of each report
    assert not registry.find("protocols", "medevalkit").is_published_on("rad-restruct")


def test_a_published_rule_receives_the_spaces_around_an_answer():
    row = Example("slake/test/1", "i", "?", ("CT",), "i", {"answer_type": "OPEN"})
    answered = join([row], [Prediction("slake/test/1", "CT", " CT\n")])
    medevalkit = registry.find("protocols", "medevalkit")
    scores = protocol_scores([medevalkit], answered, baseline=None, training_rows=(), bootstrap=Bootstrap(resamples=10))
    assert [(s.published.value, s.repaired.value) for s in scores if s.metric == "open"] == [(0.0, 1.0)]


def test_spaces_that_a_model_did_not_write_are_not_added():
    row = Example("slake/test/1", "i", "?", ("CT",), "i", {"answer_type": "OPEN"})
    answered = join([row], [Prediction("slake/test/1", "CT", "<think>MRI?</think> CT")])
    assert untrimmed(answered.answers) is answered.answers
