"""What the guards withhold of scored answers, and how good the answers are that they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medical_vqa.evaluation.statistics.tally import Tally
from medical_vqa.schema.prediction_table import PredictionTable
from medical_vqa.schema.results import Bootstrap, Score, Withheld


def withheld_answers(answers: PredictionTable, tallies: Sequence[Tally], bootstrap: Bootstrap) -> Withheld | None:
    """The scores of what the guards show and withhold; None where no prediction has a decision of theirs.

    Args:
        answers: The scored answers.
        tallies: Their counts, one for each metric.
        bootstrap: How intervals are resampled.
    """
    decisions = {row.id: row.guards for row in answers.further.values() if row.guards is not None}
    if not decisions:
        return None
    reasons = Counter(decision.reason_code or "other" for decision in decisions.values() if decision.withheld)

    def scores(withheld: bool) -> dict[str, Score]:
        ids = {id_ for id_, decision in decisions.items() if decision.withheld is withheld}
        return {
            counted.metric.name: counted.subset(
                [row for row, id_ in enumerate(counted.examples.ids) if id_ in ids]
            ).score(bootstrap)
            for counted in tallies
        }

    return Withheld(
        checked=len(decisions),
        withheld=reasons.total(),
        reasons=dict(reasons.most_common()),
        visible=scores(False),
        hidden=scores(True),
    )
