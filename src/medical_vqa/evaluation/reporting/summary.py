"""The result in plain words, for someone who must decide whether to trust the model."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.tally import Score
from medical_vqa.evaluation.reporting.wording import bounds, count, percent, title
from medical_vqa.evaluation.results import MetricResult, Results


def plain_words(results: Results) -> list[str]:
    """Up to five sentences or pairs of sentences: how often right, how sure, what looking is worth, where weakest."""
    first = results.metrics[0]
    found = [_how_often(first), _how_sure(first, results), _baseline(first), _weakest(results)]
    return [sentence for sentence in found if sentence]


def limits(results: Results) -> list[str]:
    """What the numbers cannot say."""
    found = [
        "An answer counts as right only if it is worded like the reference: a correct synonym counts as wrong, and "
        "an answer that is close is no better than one that is absurd."
    ]
    if results.dataset.split == "validation":
        found.append(
            "The validation split usually serves to choose among the states of a training run, which makes a score "
            "on it a little too good; a test split that nothing was chosen on is the sterner judge."
        )
    if results.dataset.split == "train":
        found.append(
            "These are the questions that the model may have been trained on: they say nothing about new ones."
        )
    found.append(
        "Images of one dataset come from few scanners and hospitals. Other equipment, other patients and other "
        "questions are not covered by any number here."
    )
    return found


def not_scored(results: Results) -> list[str]:
    """One line per reason why something was left out: ``3 questions: no prediction (slake/1, slake/2, ...)``."""
    return [_named(part.n, part.reason, part.ids) for part in results.set_aside]


def look_at(results: Results) -> list[str]:
    """One line per kind of answer that is scored, but that a reader should know of."""
    return [_named(part.n, part.what, part.ids) for part in results.noted]


def clean_line(results: Results) -> str:
    """The score without rows that training may have shown, in one line; empty where there is nothing to leave out."""
    clean = results.clean
    if clean is None:
        return ""
    scores = [f"{m.label} {percent(clean.scores[m.name].value)} {bounds(clean.scores[m.name].interval)}"
              for m in results.metrics]  # fmt: skip
    left = next(iter(clean.scores.values())).n
    return " · ".join([f"clean rows: {scores[0]}", *scores[1:], f"n={left:,}", without(results)])


def without(results: Results) -> str:
    """Why the rows that are not clean were left out, and whether this model learned from them."""
    clean = results.clean
    if clean is None:
        return ""
    nearly = f", {clean.near:,} more nearly so" if clean.looked else ", near-duplicates not looked for"
    left_out = f"without {count(clean.exact, 'question')} whose image is in a training part{nearly}"
    if clean.learned is None:
        return f"{left_out}; which of them the model learned from, no card says"
    return f"{left_out}; by its card the model learned from the image of {clean.learned:,}"


def _named(n: int, what: str, ids: list[str]) -> str:
    return f"{n:,}: {what} ({', '.join(ids[:3])}{', …' if n > 3 else ''})"


def _how_often(metric: MetricResult) -> str:
    value, n = metric.score.value, metric.score.n
    if value is None:
        return "Nothing could be scored."
    right = f"{round(value * n):,} of {count(n, 'question')}"
    return f"The model answered {right} exactly as the reference does: {_in_hundred(value)} in 100."


def _how_sure(metric: MetricResult, results: Results) -> str:
    interval = metric.score.interval
    if interval.low is None or interval.high is None:
        return f"No interval can be given: {interval.reason}."
    low, high = _in_hundred(interval.low), _in_hundred(interval.high)
    return (
        f"On other images drawn like these {results.counts.images:,}, between {low} and {high} in 100 is what to "
        f"expect ({100 * interval.level:.0f} % interval)."
    )


def _baseline(metric: MetricResult) -> str:
    if not metric.baselines:
        return ""
    name = next(iter(metric.baselines))
    baseline, gain = metric.baselines[name].value, metric.differences[name]
    if baseline is None or gain.value is None:
        return ""
    without = f"Without any image, the {name} baseline reaches {_in_hundred(baseline)} in 100."
    return f"{without} {_gain(gain)}"


def _gain(gain: Score) -> str:
    low, high = gain.interval.low, gain.interval.high
    size = f"{percent(gain.value, signed=True)} points {bounds(gain.interval, signed=True)}"
    if low is None or high is None:
        return f"The model is {size} away from it."
    if low > 0:
        return f"The model, which looks at the image, is clearly above it: {size}."
    if high < 0:
        return f"The model does worse than not looking at all: {size}."
    return f"The data cannot tell whether looking at the image helps: {size}."


def _weakest(results: Results) -> str:
    name, label = results.metrics[0].name, results.metrics[0].label
    rows = [
        (row.scores[name], fact.facts, row.levels)
        for fact in results.breakdowns
        for row in fact.rows
        if not row.small and row.scores[name].value is not None
    ]
    if len(rows) < 2:
        return ""
    score, facts, levels = min(rows, key=lambda row: (row[0].value, row[2]))
    where = " and ".join(f"{title(fact).lower()} {level}" for fact, level in zip(facts, levels, strict=True))
    return (
        f"Among the groups large enough to judge it is weakest on {where}: {label} {percent(score.value)} "
        f"{bounds(score.interval)} on {count(score.n, 'question')}."
    )


def _in_hundred(share: float) -> str:
    return f"{100 * share:.0f}"
