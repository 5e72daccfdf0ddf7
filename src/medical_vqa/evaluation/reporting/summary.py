"""The result in plain words: the headline, and sentences for someone who must decide whether to trust the model.

``headline(results)``::

    EM 82.3 [80.1, 84.4] · n=1,053 questions on 96 images · question-only baseline 54.1 · squad_v2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medical_vqa.evaluation.reporting.wording import bounds, count, percent, title
from medical_vqa.schema.results import MetricResult, NamedRows, Results, Score, Withheld, WithoutLeaks


def headline(results: Results) -> str:
    """The result in one line: metrics with intervals, questions and images, the first baseline, protocol."""
    scores = [f"{m.label} {percent(m.score.value)} {bounds(m.score.interval)}" for m in results.metrics]
    first_baseline = list(results.metrics[0].baselines.items())[:1]
    baseline = [f"{name} baseline {percent(score.value)}" for name, score in first_baseline]
    unanswered = [
        f"{metric.label} {percent(metric.unanswered_as_wrong.value)}"
        for metric in results.metrics
        if metric.unanswered_as_wrong
    ]
    as_wrong = [f"unanswered as wrong: {', '.join(unanswered)}"] if unanswered else []
    return " · ".join([*scores, f"n={scope(results)}", *as_wrong, *baseline, results.protocol.name])


def scope(results: Results) -> str:
    """What the numbers rest on: ``1,053 questions on 96 images``, or ``1,000 of 1,053 questions on ...``."""
    counts = results.counts
    part = f"{counts.scored:,} of " if counts.scored < counts.examples else ""
    return f"{part}{count(counts.examples, 'question')} on {count(counts.images, 'image')}"


def row_lines(rows: Sequence[NamedRows]) -> list[str]:
    """One line per reason: ``3: no prediction (slake/1, slake/2, slake/3)``."""
    return [f"{part.n:,}: {part.reason} ({', '.join(part.ids[:3])}{', …' if part.n > 3 else ''})" for part in rows]


def notes(excluded: Sequence[NamedRows], warnings: Sequence[NamedRows]) -> list[str]:
    """A line for each reason why rows are not scored, and for each kind of answer to check.

    Args:
        excluded: Rows that are not scored.
        warnings: Rows whose score may say nothing about the model.
    """
    return [*(f"not scored, {line}" for line in row_lines(excluded)), *row_lines(warnings)]


def without_leaks_line(results: Results) -> str:
    """The score without leaked rows, in one line; empty if there is nothing to leave out."""
    clean = results.without_leaks
    if clean is None:
        return ""
    scores = [
        f"{metric.label} {percent(score.value)} {bounds(score.interval)}"
        for metric, score in ((metric, clean.scores[metric.name]) for metric in results.metrics)
    ]
    n = clean.scores[results.metrics[0].name].n
    excluded = left_out(clean)
    if clean.trained_on is None:
        trained = "it is unknown which of them the model was trained on"
    else:
        trained = f"by its card the model was trained on the image of {clean.trained_on:,}"
    reasons = "; ".join(reason for reason in (excluded, trained) if reason)
    return " · ".join([f"without leaks: {scores[0]}", *scores[1:], f"n={n:,}", reasons])


def left_out(clean: WithoutLeaks) -> str:
    """Which questions a score without leaks leaves out, and why."""
    reasons = (
        (clean.exact_duplicates, "whose image is in a training part"),
        (clean.near_duplicates, "whose image has a near-duplicate in a training part"),
        (clean.same_group, "of whose patient or study another image is in a training part"),
    )
    parts: list[str] = []
    for n, reason in reasons:
        if n:
            parts.append(f"{n:,} more {reason}" if parts else f"without {count(n, 'question')} {reason}")
    if not clean.near_duplicates_checked:
        parts.append("near-duplicates not checked")
    return ", ".join(parts)


def withheld_line(results: Results) -> str:
    """What the guards withhold and how good the rest is, in one line; empty if the predictions have no decisions."""
    if results.withheld is None:
        return ""
    return withheld_text(results.withheld, {metric.name: metric.label for metric in results.metrics})


def withheld_text(guards: Withheld, labels: Mapping[str, str]) -> str:
    """The same as `withheld_line`, of some metrics: name -> label."""
    on_visible = f" on the {guards.checked - guards.withheld:,} shown"
    parts = [(guards.visible, on_visible), (guards.hidden, " on those withheld")][: 2 if guards.withheld else 1]
    scores = [
        ", ".join(f"{label} {percent(of[name].value)} {bounds(of[name].interval)}" for name, label in labels.items())
        + on
        for of, on in parts
    ]
    reasons = f" ({_reasons(guards)})" if guards.withheld else ""
    return " · ".join([f"guards withhold {guards.withheld:,} of {count(guards.checked, 'answer')}{reasons}", *scores])


def _reasons(guards: Withheld) -> str:
    return ", ".join(f"{code.replace('_', ' ')} {n:,}" for code, n in guards.reasons.items())


def plain_words(results: Results) -> list[str]:
    """Sentences: accuracy, unanswered rows, leaks, certainty, gain over the baseline, weakest group."""
    first = results.metrics[0]
    sentences = [
        _accuracy(first),
        _unanswered(first),
        _reasoning(results),
        _leaks(first, results),
        _guards(first, results),
        _certainty(first, results),
        _baseline(first),
        _weakest_group(results),
    ]
    return [sentence for sentence in sentences if sentence]


def limits(results: Results) -> list[str]:
    """What the numbers cannot say."""
    sentences = [
        "An answer counts as right only if it is worded like the reference: a correct synonym counts as wrong, and "
        "an answer that is close is no better than one that is absurd."
    ]
    if results.dataset.split == "validation":
        sentences.append(
            "The validation split usually selects the checkpoint of a training run, which makes a score on it a little "
            "too good; a test split that nothing was selected on is more reliable."
        )
    if results.dataset.split == "train":
        sentences.append("The model may have been trained on these questions: they say nothing about new ones.")
    sentences.append(
        "Images of one dataset come from few scanners and hospitals. No number here covers other equipment, other "
        "patients or other questions."
    )
    return sentences


def _accuracy(metric: MetricResult) -> str:
    value, n = metric.score.value, metric.score.n
    if value is None:
        return "Nothing could be scored."
    right = f"{round(value * n):,} of {count(n, 'question')}"
    return f"The model answered {right} exactly as the reference does: {_in_hundred(value)} in 100."


def _unanswered(metric: MetricResult) -> str:
    score = metric.unanswered_as_wrong
    if score is None or score.value is None:
        return ""
    return (
        f"{score.n - metric.score.n:,} of {count(score.n, 'question')} have no answer to score; with these counted as "
        f"wrong it is {_in_hundred(score.value)} in 100."
    )


def _reasoning(results: Results) -> str:
    reasoning, first = results.reasoning, results.metrics[0]
    if reasoning is None:
        return ""
    return (
        f"{reasoning.rows.n:,} answers hold reasoning, and their final answer was scored ({reasoning.step}); a rule "
        f"that compares the complete texts gives {first.label} {percent(reasoning.complete_texts[first.name])}."
    )


def _leaks(metric: MetricResult, results: Results) -> str:
    """What training may have shown, and the score without it: it decides what the score means."""
    clean = results.without_leaks
    if clean is None or not (n := leaked_rows(results)):
        return ""
    score = clean.scores[metric.name]
    rest = (
        f"On the {count(score.n, 'question')} about other images it is {_in_hundred(score.value)} in 100 "
        f"{bounds(score.interval)}."
        if score.n and score.value is not None
        else "No question about another image is left."
    )
    if clean.trained_on:
        return (
            f"By its card the model was trained on the images of {clean.trained_on:,} of these "
            f"{count(metric.score.n, 'question')}: about those the score is what it remembers, not what it can do with "
            f"a new image. {rest}"
        )
    if not may_be_learned(results):
        return (
            f"The images of {n:,} of these {count(metric.score.n, 'question')} are also in a training part of the "
            f"dataset, but by its card the model was not trained on them. {rest}"
        )
    near = " or have a near-duplicate there" if clean.near_duplicates else ""
    return (
        f"The images{' or patients' if clean.same_group else ''} of {n:,} of these "
        f"{count(metric.score.n, 'question')} are also in a training part of the dataset{near}: "
        f"the score is about images that a model may have seen. {rest}"
    )


def leaked_rows(results: Results) -> int:
    """Number of scored rows that training may have shown."""
    clean, first = results.without_leaks, results.metrics[0]
    return 0 if clean is None else first.score.n - clean.scores[first.name].n


def may_be_learned(results: Results) -> bool:
    """Whether a scored row may be about an image, a near-duplicate or a patient that the model was trained on."""
    clean = results.without_leaks
    if clean is None or not leaked_rows(results):
        return False
    return clean.trained_on != 0 or clean.near_duplicates > 0 or clean.same_group > 0


def _guards(metric: MetricResult, results: Results) -> str:
    """What a person would see of these answers."""
    guards = results.withheld
    if guards is None:
        return ""
    visible, hidden = guards.visible[metric.name], guards.hidden[metric.name]
    if not guards.withheld:
        return f"The guards withhold none of {count(guards.checked, 'answer')}."
    of_shown = "nothing is shown"
    if visible.value is not None:
        right = f"{_in_hundred(visible.value)} in 100 are right {bounds(visible.interval)}"
        of_shown = f"of the {visible.n:,} that are shown, {right}"
    return (
        f"The scores are of all answers. A person is not shown all of them: the guards withhold "
        f"{guards.withheld:,} of {guards.checked:,} ({_reasons(guards)}); {of_shown}, of the withheld ones "
        f"{_in_hundred(hidden.value or 0.0)} in 100."
    )


def _certainty(metric: MetricResult, results: Results) -> str:
    interval = metric.score.interval
    if interval.low is None or interval.high is None:
        return f"No interval can be given: {interval.reason}."
    images = "On other images sampled like these"
    if may_be_learned(results):
        images = "On other images that are in a training part to the same degree as these"
    return (
        f"{images} {results.counts.images:,}, expect between {_in_hundred(interval.low)} and "
        f"{_in_hundred(interval.high)} in 100 ({100 * interval.level:.0f} % interval)."
    )


def _baseline(metric: MetricResult) -> str:
    if not metric.baselines:
        return ""
    name = next(iter(metric.baselines))
    baseline, gain = metric.baselines[name].value, metric.differences[name]
    if baseline is None or gain.value is None:
        return ""
    return f"Without any image, the {name} baseline reaches {_in_hundred(baseline)} in 100. {_gain(gain)}"


def _gain(gain: Score) -> str:
    low, high = gain.interval.low, gain.interval.high
    size = f"{percent(gain.value, signed=True)} points {bounds(gain.interval, signed=True)}"
    if low is None or high is None:
        return f"The difference of the model to it is {size}."
    if low > 0:
        return f"The model is clearly above this baseline without images: {size}."
    if high < 0:
        return f"The model is worse than this baseline without images: {size}."
    return f"The data do not show whether using the image helps: {size}."


def _weakest_group(results: Results) -> str:
    name, label = results.metrics[0].name, results.metrics[0].label
    groups = [
        (row.scores[name], breakdown.facts, row.levels)
        for breakdown in results.breakdowns
        for row in breakdown.rows
        if not row.small and row.scores[name].value is not None
    ]
    if len(groups) < 2:
        return ""
    score, facts, levels = min(groups, key=lambda group: (group[0].value, group[2]))
    where = " and ".join(f"{title(fact).lower()} {level}" for fact, level in zip(facts, levels, strict=True))
    return (
        f"Among the groups large enough to judge it is weakest on {where}: {label} {percent(score.value)} "
        f"{bounds(score.interval)} on {count(score.n, 'question')}."
    )


def _in_hundred(fraction: float) -> str:
    return f"{100 * fraction:.0f}"
