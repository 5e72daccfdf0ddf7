"""State of one visitor's page between two runs of its script."""

from __future__ import annotations

from dataclasses import dataclass, field

from medical_vqa.app.case import Case, Turn, open_case
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.serving.schema.models import ModelInfo

_MAX_CASES = 8
"""Cases of one visitor; older ones are removed."""
MAX_BYTES = 100_000_000
"""Total size of one visitor's files; the open one stays in any case."""


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that could not be opened."""

    name: str
    """File name."""
    data: bytes
    """Bytes of the file, for another attempt."""
    suggestions: tuple[str, ...]
    """Suggested questions of an example."""
    error: BackendError
    """Reason of the failure."""


@dataclass(slots=True)
class RatingState:
    """A visitor's rating of one answer."""

    correct: bool
    """Whether the visitor called the answer right."""
    message: str | None = None
    """Text key of the confirmation; None while the form for details is open."""


@dataclass(slots=True)
class Session:
    """The visitor's cases, of which at most one is open, and the state of the controls."""

    model: ModelInfo | None = None
    """Card of the model; None until the backend was reached once."""
    cases: list[Case] = field(default_factory=list)
    """Oldest first."""
    open_id: str | None = None
    """Id of the open case."""
    refused: RefusedFile | None = None
    """The last file, where it could not be opened."""
    uploads: int = 0
    """Number of files opened; part of the upload field's key, so that the field is empty again after each."""
    attention_turn_id: str | None = None
    """Id of the turn whose attention map is displayed; None: the last turn."""
    ratings: dict[str, RatingState] = field(default_factory=dict)
    """Answer id → rating."""

    @property
    def case(self) -> Case | None:
        """The open case."""
        return next((case for case in self.cases if case.id == self.open_id), None)

    @property
    def earlier_cases(self) -> list[Case]:
        """All cases but the open one, newest first."""
        return [case for case in reversed(self.cases) if case.id != self.open_id]

    @property
    def attention_turn(self) -> Turn | None:
        """The turn whose attention map is displayed."""
        if self.case is None or not self.case.turns:
            return None
        return next((turn for turn in self.case.turns if turn.id == self.attention_turn_id), self.case.turns[-1])

    def open_file(self, backend: Backend, name: str, data: bytes, suggestions: tuple[str, ...] = ()) -> None:
        """Close the open case, then open a file: a question must never go to the former image by mistake.

        A file that was opened before brings its conversation back. A file that cannot be opened becomes `refused`.

        Args:
            backend: Where to upload the file.
            name: File name, for display.
            data: Bytes of the file.
            suggestions: Suggested questions; without any the backend is asked for some.
        """
        self.close_case()
        self.uploads += 1
        known_case = next((case for case in self.cases if case.data == data), None)
        if known_case is not None:
            self.open_id = known_case.id
            return
        try:
            case = open_case(backend, name, data, suggestions=suggestions)
        except BackendError as error:
            self.refused = RefusedFile(name, data, suggestions, error)
            return
        self.cases = _newest([*self.cases, case])
        self.open_id = case.id

    def close_case(self) -> None:
        """Close the open case without removing it."""
        self.open_id = None
        self.refused = None
        self.attention_turn_id = None

    def remove_case(self, case: Case) -> None:
        """Remove a case and its conversation."""
        self.cases.remove(case)
        if self.open_id == case.id:
            self.close_case()


def _newest(cases: list[Case]) -> list[Case]:
    """The newest cases within the limits of number and size."""
    within_limits = cases[-1:]
    size = len(cases[-1].data)
    for case in reversed(cases[-_MAX_CASES:-1]):
        size += len(case.data)
        if size > MAX_BYTES:
            break
        within_limits.insert(0, case)
    return within_limits
