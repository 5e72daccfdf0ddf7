"""What an engine returns for a question, and the sizes and times that bound it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medical_vqa.models.guards.abstention import AbstentionDecision
from medical_vqa.models.guards.pictures.image_dependence import Source
from medical_vqa.models.guards.sides import Side
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes and times of an `Engine`."""

    batch_size: int = 8
    """Most questions in one model call."""
    batch_wait: float = 0.003
    """Seconds that a batch may wait for more questions while several clients ask."""
    queue_size: int = 256
    """Most questions and pictures that may wait."""
    deadline: float = 7.0
    """Seconds in which a question is answered or refused."""
    contended_batch_size: int | None = None
    """The same while several clients ask, so that one waits for little of another's work; None: as many as alone."""
    step_seconds: float | None = None
    """Seconds after which a batch may be interrupted for another client's; None: a batch is computed at once."""
    answer_cache_size: int = 10_000
    """Answers that are cached; 0: none."""
    answer_ttl: float | None = None
    """Seconds that an answer is cached at most; None: until there are too many."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The model's answer to one question."""

    prediction: Prediction
    """With the calibrated confidence."""
    abstention: AbstentionDecision
    """Whether the answer should be relied on."""
    image_dependence: float | None = None
    """How much the picture moves the answer, in [0, 1]; None where that was not measured."""
    source: Source | None = None
    """Where the answer comes from; None where that was not measured."""
    side: Side | None = None
    """Whose left or right it names."""
    evidence: tuple[Evidence, ...] = ()
    """Where the model localizes what the question or the answer names."""
    attention_map: NDArray[np.float32] | None = None
    """Where in the picture the answer comes from (rows, columns); None unless requested."""
    rendered: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What a server has made of it to send it again, which is forgotten together with the answer."""


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """An answer, with the time that it took."""

    answer: ModelAnswer
    """The model's answer."""
    queue_seconds: float = 0.0
    """Time in the queue."""
    model_seconds: float = 0.0
    """Time of the batch in the model."""
    batch_size: int = 0
    """Questions in that batch; 0: the answer was cached."""
