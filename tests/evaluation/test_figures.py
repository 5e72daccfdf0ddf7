from xml.etree import ElementTree

import pytest

from medical_vqa.evaluation.reporting import figures
from medical_vqa.evaluation.statistics.calibration import reliability_bins


def parsed(svg):
    """The figure as a tree: it has to be well-formed, named for screen readers and sized for any width."""
    root = ElementTree.fromstring(str(svg))
    assert (root.get("role"), root.get("width")) == ("img", "100%")
    assert root.find("title").text
    return root


def test_a_row_shows_dot_interval_and_baseline_at_their_per_cent():
    root = parsed(figures.interval_row(0.8, 0.75, 0.86, 0.5, "CT 80.0"))
    _, interval, baseline = root.findall("line")
    assert root.find("circle").get("cx") == "80.00%"
    assert (interval.get("x1"), interval.get("x2")) == ("75.00%", "86.00%")
    assert (baseline.get("x1"), baseline.get("stroke-dasharray")) == ("50.00%", "3 2")


def test_a_row_without_value_interval_or_baseline_is_an_empty_scale():
    root = parsed(figures.interval_row(None, None, None, None, "nothing scored"))
    assert root.find("circle") is None
    assert len(root.findall("line")) == 1


def test_labels_are_escaped():
    assert "&lt;script&gt;" in figures.interval_row(0.5, None, None, None, "<script>")


def test_the_histogram_stacks_wrong_answers_on_right_ones():
    outcomes = [(0.05, False), (0.95, True), (0.95, True), (1.0, True), (0.91, False)]
    bins = reliability_bins([(*outcome, f"scan-{number}") for number, outcome in enumerate(outcomes)])
    bars = parsed(figures.confidence_histogram(bins)).findall("rect")
    assert [bar.find("title").text for bar in bars] == ["1 wrong", "3 right", "1 wrong"]
    assert float(bars[2].get("y")) + float(bars[2].get("height")) == pytest.approx(float(bars[1].get("y")), abs=0.2)


def test_a_line_chart_has_one_line_per_series_and_marks_an_x():
    points = [(1.0, 0.2), (2.0, 0.4), (3.0, 0.5)]
    root = parsed(figures.line_chart("Scores", {"EM": points, "F1": points}, x_title="epoch", mark=2.0))
    assert len(root.findall("svg/polyline")) == 2
    assert any(line.get("stroke-dasharray") for line in root.findall("line"))


@pytest.mark.parametrize("points", [[(1.0, 5.0), (2.0, 5.0)], [(1.0, 0.0), (2.0, 0.0)], [(3.0, -1.0), (3.0, 1e-9)]])
def test_flat_lines_and_single_positions_can_be_drawn(points):
    parsed(figures.line_chart("Loss", {"loss": points}, x_title="epoch"))
