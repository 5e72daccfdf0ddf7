"""Every protocol on the same six predictions, and the table of them all."""

from dataclasses import replace

import pytest

from medical_vqa import registry
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.protocols.base import Context
from medical_vqa.evaluation.protocols.scoring import changed_rows, protocol_scores
from medical_vqa.evaluation.reporting.protocol_table import protocol_table, rows_counted
from medical_vqa.evaluation.statistics.tally import AnswerTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap

BOOTSTRAP = Bootstrap(resamples=20)


def scores(names, examples, predictions, train=()):
    answered = join(examples, predictions)
    settings = {"baseline": None, "training_rows": train, "bootstrap": BOOTSTRAP}
    rows = [protocol_scores([registry.find("protocols", name)], answered, **settings) for name in names]
    return {(score.protocol, score.metric): score for scores in rows for score in scores}


def test_the_table_of_the_design_is_there_row_by_row():
    assert registry.names("protocols") == [
        "squad_v2", "llava_med", "medevalkit", "lmms_eval", "m2i2", "mevf", "qcr", "medvint", "multimedeval", "helm",
        "vila_m3", "vqa_med", "path_vqa", "omnimedvqa", "medxpertqa", "vlmevalkit", "judge",
    ]  # fmt: skip


@pytest.mark.parametrize("name", registry.names("protocols"))
def test_every_protocol_has_a_rule_a_citation_and_signatures_of_its_own(name, examples):
    protocol = registry.find("protocols", name)
    assert protocol.rule.endswith(".")
    assert len(protocol.citation) > 20
    metrics = protocol.build(Context(examples, examples))
    signatures = [metric.published.signature() for metric in metrics]
    assert len(set(signatures)) == len(signatures)
    for metric in metrics:
        assert metric.repaired is not None
        differs = metric.repaired.signature() != metric.published.signature()
        assert differs == bool(metric.defect), metric.published.name


def test_dressing_an_answer_changes_what_is_published_as_the_design_says(examples):
    bare = [Prediction(e.id, e.answers[0]) for e in examples]
    dressed = [replace(p, answer=f"The answer is {p.answer}.") for p in bare]
    both = [replace(p, answer=f"yes no {p.answer}") for p in bare]
    wrong = [Prediction(e.id, "yes no") for e in examples]
    keys = {
        "squad": ("squad_v2", "em"),
        "recall": ("llava_med", "open_recall"),
        "closed": ("llava_med", "closed"),
        "kit": ("medevalkit", "closed"),
        "multi": ("multimedeval", "closed"),
    }
    names = ["squad_v2", "llava_med", "medevalkit", "multimedeval"]
    found = [scores(names, examples, given) for given in (bare, dressed, both, wrong)]
    values = {key: [one[place].published.value for one in found] for key, place in keys.items()}
    assert values == {
        "squad": [1.0, 0.0, 0.0, 0.0],
        "recall": [1.0, 1.0, 1.0, 0.0],
        "closed": [1.0, 1.0, 1.0, 1.0],
        "kit": [1.0, 0.0, 0.0, 0.0],
        "multi": [1.0, 1.0, 1.0, 1.0],
    }
    repaired = [one["llava_med", "closed"].repaired.value for one in found]
    assert repaired == [1.0, 1.0, 0.0, 0.0]
    assert [one["medevalkit", "closed"].repaired.value for one in found] == [1.0, 1.0, 0.0, 0.0]


def test_mevf_scores_freeform_rows_only_and_is_nothing_where_there_are_none(examples, predictions):
    marked = [replace(e, facts={**e.facts, "phrase_type": "freeform" if e.id < "3" else "para"}) for e in examples]
    assert scores(["mevf"], marked, predictions)["mevf", "overall"].published.n == 2
    assert scores(["mevf"], marked, predictions)["mevf", "overall"].repaired.n == 6
    assert scores(["mevf"], examples, predictions)["mevf", "overall"].published.value is None


def test_qcr_counts_rows_by_what_the_model_took_them_for(examples, predictions):
    given = [replace(p, answer="lung") if p.id == "6" else p for p in predictions]  # a closed question taken for open
    found = scores(["qcr"], examples, given, train=examples)
    assert (found["qcr", "closed"].published.n, found["qcr", "closed"].repaired.n) == (2, 3)
    assert (found["qcr", "open"].published.n, found["qcr", "open"].repaired.n) == (4, 3)


def test_medvint_takes_its_labels_from_the_scored_rows_and_repaired_from_training(examples):
    given = [Prediction(e.id, "livers") for e in examples]
    found = scores(["medvint"], examples, given, train=[e for e in examples if e.answers[0] == "Yes"])
    assert found["medvint", "open"].published.value == pytest.approx(1 / 3)
    assert found["medvint", "open"].repaired.value == 0.0  # no open label in training: nothing is near
    assert scores(["medvint"], examples, given)["medvint", "open"].repaired is None


def test_rows_without_an_answer_type_are_neither_open_nor_closed(examples, predictions):
    bare = [replace(e, facts={}) for e in examples]
    found = scores(registry.names("protocols"), bare, predictions, train=bare)
    assert found["llava_med", "closed"].published.value is None
    assert found["m2i2", "overall"].published.n == 6
    assert "llava_med" in protocol_table(list(found.values()))


def test_results_hold_the_requested_protocols_with_the_baseline(examples, predictions, baseline, score):
    baselines = {"question-only": baseline}
    results = score(examples, predictions, baselines=baselines, published_protocols=["m2i2"])
    assert [row.metric for row in results.protocols] == ["overall", "open", "closed"]
    assert results.protocols[0].baseline == pytest.approx(2 / 6)


@pytest.mark.slow
def test_all_protocols_score_two_thousand_different_texts():
    organs = ["lung", "liver", "heart", "kidney", "spleen", "brain", "bladder", "colon", "trachea"]
    findings = [
        "mass",
        "nodule",
        "cyst",
        "edema",
        "effusion",
        "atelectasis",
        "pneumonia",
        "cancer",
        "stone",
        "infarction",
    ]
    labels = [f"{side} {organ} {finding}" for side in ("left", "right") for organ in organs for finding in findings]
    rows = [
        Example(str(n), f"scan-{n % 200}", "What?", (labels[n % 180],), f"scan-{n % 200}", {"answer_type": "OPEN"})
        for n in range(2000)
    ]
    answers = [Prediction(str(n), f"In picture {n} I think I see a {labels[n % 77]}.") for n in range(2000)]
    answered = join(rows, answers)
    settings = {"baseline": answered.answers, "training_rows": rows, "bootstrap": Bootstrap()}
    protocols = [registry.find("protocols", name) for name in registry.names("protocols")]
    found = protocol_scores(protocols, answered, **settings)
    assert {one.protocol for one in found} == set(registry.names("protocols"))
    assert found == [one for protocol in protocols for one in protocol_scores([protocol], answered, **settings)]
    for one in found:
        score, interval = one.published.value, one.published.interval
        assert interval.reason or interval.low <= score <= interval.high


def test_the_rows_that_a_defect_changes_are_counted_and_named(examples):
    dressed = [Prediction(e.id, f"yes no {e.answers[0]}") for e in examples]
    found = scores(["llava_med", "squad_v2", "multimedeval"], examples, dressed)
    closed = found["llava_med", "closed"]
    assert (closed.changed, closed.changed_ids) == (3, ("2", "4", "6"))
    assert (found["squad_v2", "f1"].changed, found["squad_v2", "f1"].changed_ids) == (0, ())
    assert found["multimedeval", "bleu1"].changed is None  # BLEU of a corpus has no score of a row


def test_rows_that_only_the_repaired_rule_counts_are_changed_and_both_numbers_are_shown(examples, predictions):
    marked = [replace(e, facts={**e.facts, "phrase_type": "freeform" if e.id < "3" else "para"}) for e in examples]
    overall = scores(["mevf"], marked, predictions)["mevf", "overall"]
    assert overall.changed_ids == ("3", "4", "5", "6")
    assert rows_counted(overall) == "2 \N{RIGHTWARDS ARROW} 6"
    assert "2 \N{RIGHTWARDS ARROW} 6" in protocol_table([overall])


@pytest.mark.parametrize("name", ["llava_med", "path_vqa"])
def test_bleu_is_repaired_over_the_rows_that_it_is_published_over(name, examples):
    answers = [Prediction(example.id, example.answers[0]) for example in examples]
    bleu = scores([name], examples, answers)[name, "bleu"]
    assert bleu.published.n == bleu.repaired.n < len(examples)


def test_the_rows_that_a_repair_changes_are_the_same_of_one_table_and_of_two():
    rows = [Example(str(n), "i", "What?", (("yes", "left lung")[n % 2],), "i", {}) for n in range(6)]
    texts = ["yes", "lung", "Yes.", "left lung", "no", "the left lung"]
    answers = {row.id: Prediction(row.id, text) for row, text in zip(rows, texts, strict=True)}
    one_table = AnswerTable(rows, answers)
    metrics = exact_match(), registry.find("protocols", "vila_m3").build(Context())[0].published
    of_one = changed_rows(*map(one_table.tally, metrics))
    of_two = changed_rows(*(AnswerTable(rows, answers).tally(metric) for metric in metrics))
    assert of_one == of_two == ["2", "5"]
