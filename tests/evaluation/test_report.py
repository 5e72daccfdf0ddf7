import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.reporting.report import write_report
from medical_vqa.evaluation.reporting.summary import headline
from medical_vqa.evaluation.reporting.training_charts import training_charts
from medical_vqa.evaluation.statistics.breakdown import default_facts
from medical_vqa.schema.records import Example, Prediction

VOID = {"meta", "link", "br", "img", "input", "hr"}
HISTORY = [
    {"step": 1, "epoch": 1, "loss": 3.0},
    {"step": 2, "epoch": 1, "train_loss": 2.5, "em": 0.3, "f1": 0.4, "best": True},
    {"step": 4, "epoch": 2, "train_loss": 1.5, "em": 0.5, "f1": 0.6, "best": True},
    {"step": 6, "epoch": 3, "train_loss": 1.2, "em": 0.4, "f1": 0.5, "best": False},
]


class Page(HTMLParser):
    """Checks that tags close in order; keeps ids, links into the page and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def write(tmp_path, examples, predictions, baseline, images, score):
    def run(*, rows=examples, answers=predictions, baselines=None, source=images, **settings):
        baselines = {"question-only": baseline} if baselines is None else baselines
        results = score(rows, answers, baselines=baselines, breakdowns=default_facts(rows), resamples=50)
        path = tmp_path / "report.html"
        settings = {"title": "A model", "answered": join(rows, answers), **settings}
        write_report(path, results=results, baselines=baselines, images=source, **settings)
        return path.read_text(encoding="utf-8"), results

    return run


def test_the_page_is_well_formed_and_needs_nothing_but_itself(write):
    text, _ = write(history=HISTORY, card={"name": "compact"}, reproduce=["medical-vqa report x.jsonl"])
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("#", "data:image/jpeg")) for link in page.links)
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|@import|url\(", text)


def test_it_shows_the_headline_the_baseline_the_groups_and_the_commands(write):
    text, results = write(history=HISTORY, card={"model": {"width": 192}}, reproduce=["medical-vqa report x.jsonl"])
    words = " ".join("".join(Page(text).text).split())
    for expected in (
        headline(results),
        "question-only baseline",
        "Modality",
        "Gray rows rest on fewer than 20 questions or 5 images",
        "model width",
        "medical-vqa report x.jsonl",
        "Not for diagnosis",
        "CC BY 4.0",
        "scored on validation",
        "em|case:lower",
        "The dashed line marks the epoch of the selected checkpoint",
    ):
        assert expected in words


def test_each_picture_is_embedded_once_however_many_questions_show_it(write):
    text, _ = write()
    assert text.count("data:image/jpeg") == 3
    assert text.count("<use href=") == 6


def test_what_a_model_says_cannot_become_markup(write, examples, predictions):
    nasty = "<script>alert(1)</script>"
    answers = [replace(predictions[0], answer=nasty, alternatives=((nasty, 0.1),)), *predictions[1:]]
    rows = [replace(examples[0], question=nasty), *examples[1:]]
    text, _ = write(rows=rows, answers=answers, title=nasty, card={nasty: nasty}, reproduce=[nasty])
    assert nasty not in text
    assert text.count("<script>") == 1


def test_a_page_without_baselines_confidences_history_or_readable_images_can_be_written(write, predictions):
    class NoImages:
        def load(self, image_id):
            raise DataError(f"no image {image_id}")

        def digest(self, image_id):
            return ""

    bare = [Prediction(one.id, one.answer) for one in predictions]
    text, _ = write(answers=bare, baselines={}, source=NoImages())
    Page(text)
    assert "gives no confidence" in text
    assert text.count("image not available") == 6
    assert "How it was trained" not in text


def test_a_model_without_errors_is_reported(write, examples):
    text, _ = write(answers=[Prediction(e.id, e.answers[0], e.answers[0], 1.0) for e in examples])
    assert "There are no wrong answers." in text


def test_the_same_input_writes_the_same_page(write):
    assert write(history=HISTORY)[0] == write(history=HISTORY)[0]


def test_training_charts_need_two_scored_epochs():
    assert [chart.title for chart in training_charts(HISTORY)] == ["Training loss", "Validation score, per cent"]
    assert training_charts(HISTORY[:2]) == []


def test_ten_thousand_predictions_make_a_page_below_ten_megabytes(write):
    rows = [
        Example(str(n), f"scan-{n % 900}", f"Question {n % 300}?", ("yes",), f"scan-{n % 900}", {"organ": f"{n % 12}"})
        for n in range(10_000)
    ]
    answers = [Prediction(str(n), "yes" if n % 5 else f"no {n % 50}", "", (n % 97) / 97) for n in range(10_000)]
    text, _ = write(rows=rows, answers=answers, baselines={"question-only": answers})
    assert len(text) < 10_000_000


def test_findings_have_their_sensitivity_and_specificity(write):
    questions = [("yes", "yes"), ("yes", "yes"), ("yes", "no"), ("yes", "yes"), ("no", "no"), ("no", "yes")]
    rows = [
        Example(
            str(n), f"scan-{n}", "Is there a pleural effusion?", (reference,), f"scan-{n}", {"answer_type": "CLOSED"}
        )
        for n, (reference, _) in enumerate(questions)
    ]
    answers = [Prediction(str(n), answer, answer, 0.5) for n, (_, answer) in enumerate(questions)]
    text, _ = write(rows=rows, answers=answers, baselines={})
    page = Page(text)
    assert "#findings" in page.links
    section = re.search(r'<section id="findings">.*?</section>', text, re.DOTALL)[0]
    cells = [re.sub(r"<.*?>|\s+", "", cell) for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", section, re.DOTALL)]
    assert [cells[7], cells[8], cells[10], cells[11], cells[13]] == ["pleuraleffusion", "75.0", "4", "50.0", "2"]


def test_a_dataset_without_questions_for_findings_has_no_section_of_them(write, examples):
    text, _ = write(rows=examples[:1])
    assert 'id="findings"' not in text
    assert "#findings" not in Page(text).links
