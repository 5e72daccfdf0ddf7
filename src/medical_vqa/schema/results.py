"""What ``results.json`` contains: every score with its interval, its number of questions and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from medical_vqa.schema.bundle_card import Fraction
from medical_vqa.schema.document import SchemaModel
from medical_vqa.schema.prediction_card import AnsweringModel

FORMAT: Final = 1
Count = Annotated[int, Field(ge=0)]
Facts = tuple[str, ...]
"""Names of one fact, or of several that are crossed: ``("modality",)``."""


class Interval(SchemaModel):
    """A confidence interval, or the reason why there is none."""

    low: float | None
    """Lower bound, in the units of the score; null where undefined."""
    high: float | None
    """Upper bound; null where undefined."""
    level: float
    """Nominal coverage: 0.95."""
    method: str
    """How the interval was computed."""
    reason: str | None = None
    """Why there is no interval; null where there is one."""


class Score(SchemaModel):
    """A number with what it needs to be understood."""

    value: float | None
    """Score in [0, 1], or a difference in [-1, 1]; null if nothing could be scored."""
    interval: Interval
    """Confidence interval, resampled over groups."""
    n: Count
    """Number of questions behind the score."""
    clusters: Count
    """Number of groups (patients or images) those questions come from."""


class Bootstrap(SchemaModel):
    """How intervals are resampled."""

    resamples: int = 2000
    """Number of resamples."""
    level: float = 0.95
    """Nominal coverage of the intervals."""
    seed: int = 0
    """Seed of the resampling; equal input and seed give equal intervals."""


class DatasetRef(SchemaModel):
    """The rows that were scored."""

    name: str
    """Name under which the dataset was prepared: ``slake``."""
    split: str
    """``train``, ``validation`` or ``test``."""
    where: Mapping[str, str] = {}
    """Facts that selected the rows: ``{"language": "en"}``."""
    custom_split: str = ""
    """How the split was sampled, if it is not the published one."""
    manifest: str = ""
    """SHA-256 of the prepared dataset's manifest, lower-case hex."""
    title: str = ""
    """Title of the dataset."""
    license: str = ""
    """License of the dataset."""
    citation: str = ""
    """Citation that its authors ask for."""
    homepage: str = ""
    """Web page of the dataset."""


class ProtocolRef(SchemaModel):
    """The rule by which the answers were scored."""

    name: str
    """Name of the protocol: ``squad_v2``."""
    rule: str
    """What the rule does, in one sentence."""
    citation: str
    """Where the rule was published."""


class Counts(SchemaModel):
    """How much was scored."""

    examples: Count
    """Number of questions in the split."""
    predictions: Count
    """Number of predictions in the file."""
    scored: Count
    """Number of questions with an accepted answer and exactly one prediction."""
    images: Count
    """Number of images that the scored questions are about."""
    groups: Count
    """Number of groups (patients where known, else images) they belong to; intervals resample whole groups."""


class NamedRows(SchemaModel):
    """Rows that share a property, counted and named."""

    reason: str
    """The property, as a short phrase."""
    n: Count
    """Number of rows."""
    ids: tuple[str, ...]
    """The first hundred ids, sorted."""


class MetricResult(SchemaModel):
    """One metric: the model, the baselines, and the differences between them."""

    name: str
    """Key of the metric: ``em``."""
    label: str
    """Name for people: ``EM``."""
    signature: str
    """Everything that affects the number: two scores are comparable only if their signatures are equal."""
    score: Score
    """Score of the model."""
    baselines: Mapping[str, Score]
    """Baseline name -> its score on the same questions."""
    differences: Mapping[str, Score]
    """Baseline name -> model minus baseline, resampled as pairs."""
    unanswered_as_wrong: Score | None = None
    """Score in which a question without an answer counts as wrong; null where all were answered."""


class BreakdownRow(SchemaModel):
    """The scores of the questions that share a fact."""

    levels: tuple[str, ...]
    """Value of each fact: ``("CT",)``, or ``("CT", "OPEN")`` when crossed."""
    n: Count
    """Number of questions."""
    clusters: Count
    """Number of groups those questions come from."""
    small: bool
    """Whether there are too few questions or groups to draw a conclusion."""
    scores: Mapping[str, Score]
    """Metric name -> score."""
    baselines: Mapping[str, Mapping[str, Fraction | None]]
    """Baseline name -> metric name -> value on the same questions."""


class Breakdown(SchemaModel):
    """The scores by one fact, or by several crossed, largest groups first."""

    facts: Facts
    """Names of the facts: ``("modality",)``."""
    rows: tuple[BreakdownRow, ...]
    """One row per combination of values that occurs."""


class FindingScores(SchemaModel):
    """How well a finding is recognized, and its absence, by questions for yes or no."""

    name: str
    """The finding (``pleural effusion``), or what may be abnormal or of abnormal size (``liver: state``)."""
    sensitivity: Score
    """Fraction of the questions whose reference says that it is there which are answered so."""
    specificity: Score
    """Fraction of the questions whose reference says that it is not there which are answered so."""
    small: bool
    """Whether either fraction is of too few questions or images to draw a conclusion."""


class ProtocolScore(SchemaModel):
    """One number of a published protocol, as published and repaired."""

    protocol: str
    """Name of the protocol: ``llava_med``."""
    metric: str
    """Key of the metric: ``closed``."""
    label: str
    """Name for people."""
    signature: str
    """Everything that affects the published number."""
    published: Score
    """Score by the rule as its authors compute it."""
    baseline: Fraction | None
    """Score of the first baseline by the same rule."""
    repaired: Score | None
    """Score without the rule's defect; null where that cannot be computed here."""
    repaired_signature: str | None
    """Everything that affects the repaired number."""
    defect: str
    """What the defect changes; empty if there is none."""
    published_here: bool = True
    """Whether the protocol's authors publish numbers on this dataset; otherwise nothing compares with the score."""
    changed: Count | None = None
    """Number of rows whose score the repair changes, or that only one of the two counts; null for corpus scores."""
    changed_ids: tuple[str, ...] = ()
    """Ids of the first twenty of those rows."""


class CalibrationBin(SchemaModel):
    """Answers of about equal confidence."""

    low: Fraction
    """Lower bound, included."""
    high: Fraction
    """Upper bound; included in the last bin only."""
    n: Count
    """Number of answers."""
    confidence: Fraction
    """Mean confidence."""
    accuracy: Fraction
    """Fraction of correct answers."""
    interval: Interval
    """Wilson interval of the accuracy, with the number of answers divided by the design effect of groups."""


class Abstention(SchemaModel):
    """The confidence from which to answer, for a tolerated risk."""

    risk: Fraction
    """Tolerated fraction of wrong answers among those given."""
    threshold: Fraction
    """Lowest confidence of an answer that is given."""
    coverage: Fraction
    """Fraction of the questions that is answered."""
    answered: Count
    """Number of questions that are answered."""
    wrong: Count
    """Number of wrong answers among them."""
    groups: Count
    """Number of groups (images or patients) that they belong to."""
    risk_upper_bound: Fraction
    """One-sided 95 % upper bound of the fraction of wrong answers, with whole groups as units."""
    chosen_on: str
    """Rows that the threshold was chosen on; the numbers above are of other rows, unless it says `these rows`."""


class Calibration(SchemaModel):
    """How reliable the confidence is."""

    n: Count
    """Number of answers with a confidence."""
    without_confidence: Count
    """Number of answers without one, which no number here includes."""
    accuracy: Fraction
    """Fraction of correct answers."""
    confidence: Fraction
    """Mean confidence."""
    ece: Fraction
    """Expected calibration error: the mean distance of confidence and accuracy over ten bins of equal width."""
    brier: Fraction
    """Brier score: the mean squared distance of confidence and correctness; 0 is best."""
    brier_constant: Fraction
    """Brier score of a model whose confidence is always the accuracy."""
    aurc: Fraction
    """Area under the risk-coverage curve: the mean risk over all coverages; smaller is better."""
    bins: tuple[CalibrationBin, ...]
    """Reliability diagram, without empty bins."""
    risk_coverage: tuple[tuple[Fraction, Fraction], ...]
    """Risk-coverage curve: (fraction answered, fraction of those wrong), highest confidence first."""
    temperature: Annotated[float, Field(gt=0)]
    """Divisor of the confidence's log-odds."""
    temperature_source: str
    """Rows that the temperature was fitted on."""
    scaled_ece: Fraction
    """Expected calibration error with the temperature applied."""
    scaled_brier: Fraction
    """Brier score with the temperature applied."""
    abstention: Abstention | None
    """When to answer, for the tolerated risk; null if no threshold keeps it on the rows that choose it."""


class ConflictingAnswers(SchemaModel):
    """Two answers about one image that cannot both be true, or two answers to one question."""

    image_id: str
    """Id of the image."""
    first: str
    """First question and its answer."""
    second: str
    """Second question and its answer."""
    ids: tuple[str, str]
    """Ids of the two rows."""


class Consistency(SchemaModel):
    """How far a model agrees with itself."""

    comparable: Count
    """Number of pairs of answers about one image that make claims about the same entity."""
    contradictory: Count
    """Number of those pairs that contradict each other."""
    reference_contradictory: Count
    """Number of those pairs whose reference answers contradict each other: the error of this check."""
    contradictions: tuple[ConflictingAnswers, ...]
    """The first twenty contradictions of the model where the references have none."""
    paraphrased: Count
    """Number of pairs of questions that are paraphrases, according to the dataset."""
    paraphrases_disagreeing: Count
    """Number of those pairs that received different answers."""
    reference_paraphrases_disagreeing: Count
    """Number of those pairs whose reference answers differ: inconsistencies of the dataset."""
    paraphrase_disagreements: tuple[ConflictingAnswers, ...]
    """The first twenty paraphrases with different answers where the references agree."""


class WithoutLeaks(SchemaModel):
    """The same metrics without the rows that training may have shown."""

    exact_duplicates: Count
    """Number of scored rows that are left out because their image is in a training part, in any language."""
    near_duplicates: Count
    """Number of scored rows that are left out because a near-duplicate of their image is in a training part."""
    same_group: Count = 0
    """Number of further scored rows that are left out because another image of their patient or study is in a training
    part."""
    near_duplicates_checked: bool
    """Whether images were compared to find near-duplicates; otherwise only equal files are known."""
    trained_on: Count | None = None
    """Number of scored rows whose image the model was trained on, according to its card; null if that is unknown."""
    scores: Mapping[str, Score]
    """Metric name -> score on the remaining rows."""
    baselines: Mapping[str, Mapping[str, Fraction | None]]
    """Baseline name -> metric name -> value on the remaining rows."""


class Withheld(SchemaModel):
    """What the guards do to the scored answers, by the predictions file; all other scores are of all answers."""

    checked: Count
    """Number of scored answers that the guards decided about."""
    withheld: Count
    """Number of those that a person is not shown."""
    reasons: Mapping[str, Count]
    """Reason code (``low_confidence``, ``contradiction`` ...) -> number of answers, the most frequent first."""
    visible: Mapping[str, Score]
    """Metric name -> score of the answers that are shown."""
    hidden: Mapping[str, Score]
    """Metric name -> score of the answers that are withheld."""


class Reasoning(SchemaModel):
    """Answers whose text holds reasoning, such as ``<think>...</think><answer>CT</answer>``."""

    step: str
    """Name of the step that takes the final answer, as it stands in signatures."""
    rows: NamedRows
    """Rows whose text held more than the answer."""
    unfinished: NamedRows | None
    """Rows whose reasoning ends without an answer, scored as wrong; null where there is none."""
    complete_texts: Mapping[str, Fraction | None]
    """Metric name -> score of the complete texts, as a rule without this step computes it."""


class Results(SchemaModel):
    """The content of ``results.json``."""

    format: Literal[1] = FORMAT
    """Version of this layout."""
    dataset: DatasetRef
    """Rows that were scored."""
    model: AnsweringModel | None = None
    """Model that answered, as the predictions' card names it; null for a file of another program."""
    protocol: ProtocolRef
    """Rule by which the answers were scored."""
    bootstrap: Bootstrap
    """How the intervals were resampled."""
    counts: Counts
    """How much was scored."""
    excluded: tuple[NamedRows, ...]
    """Questions and predictions that were not scored, by reason; empty when all were."""
    warnings: tuple[NamedRows, ...] = ()
    """Answers that are wrong for a reason that is no judgement: empty ones, and ones with look-alike characters."""
    reasoning: Reasoning | None = None
    """Answers that held reasoning, of which the final answer was scored; null where none did."""
    metrics: Annotated[tuple[MetricResult, ...], Field(min_length=1)]
    """Metrics of the protocol; the first is the headline."""
    without_leaks: WithoutLeaks | None = None
    """Scores without leaked rows; null where no training part is known to share an image."""
    withheld: Withheld | None = None
    """What the guards withhold; null where the predictions carry no decisions (``predict --guards`` records them)."""
    protocols: tuple[ProtocolScore, ...] = ()
    """The same predictions under the requested published protocols."""
    breakdowns: tuple[Breakdown, ...] = ()
    """The metrics by fact; empty unless details or breakdowns were requested."""
    additional_metrics: tuple[MetricResult, ...] = ()
    """Closed accuracy, lists, laterality, sensitivity, BLEU and others; empty unless details were requested."""
    findings: tuple[FindingScores, ...] = ()
    """Sensitivity and specificity of each finding with five questions or more, the most frequent first; empty unless
    details were requested."""
    calibration: Calibration | None = None
    """How reliable the confidence is; null if the model gives none, or unless details were requested."""
    consistency: Consistency | None = None
    """How far the model agrees with itself; null unless details were requested."""
