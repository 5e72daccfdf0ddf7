"""What one visitor's page remembers between two runs of its script, and what may be done to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from medical_vqa.app import cases
from medical_vqa.app.cases import Case, Turn
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.serving.api.schema import ModelInfo

_MOST_CASES = 8
"""Files kept for coming back to; older ones are let go."""
MOST_BYTES = 100_000_000
"""Of the files of one visitor; the open one is kept in any case."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that could not be opened."""

    name: str
    """Of the file."""
    data: bytes
    """The file, for trying again."""
    suggestions: tuple[str, ...]
    """Questions that came with it."""
    error: BackendError
    """Why."""


@dataclass(slots=True)
class Session:
    """The cases on the session; one of them lies open, or none."""

    info: ModelInfo | None = None
    """The card of the model; None until the backend was there once."""
    cases: list[Case] = field(default_factory=list)
    """Oldest first."""
    open_id: str | None = None
    """The case that lies open."""
    refused: Refused | None = None
    """The last file, where it could not be opened."""
    uploads: int = 0
    """Counts files taken, so that the upload field starts empty again after each."""
    look_at: str | None = None
    """Turn whose heat is shown; None: the last one."""
    thumbs: dict[str, bool] = field(default_factory=dict)
    """Answer -> up or down."""
    thanks: dict[str, str] = field(default_factory=dict)
    """Answer -> key of what to say about the vote."""

    @property
    def case(self) -> Case | None:
        """The open case."""
        return next((case for case in self.cases if case.id == self.open_id), None)

    @property
    def earlier(self) -> list[Case]:
        """The others, newest first."""
        return [case for case in reversed(self.cases) if case.id != self.open_id]

    def take(self, backend: Backend, name: str, data: bytes, suggestions: tuple[str, ...] = ()) -> None:
        """Open a file. Whatever lay open is put away first: nobody may ask the old picture and mean the new one."""
        self.open_id, self.refused, self.look_at = None, None, None
        self.uploads += 1
        known = next((case for case in self.cases if case.data == data), None)
        if known is not None:
            self.open_id = known.id
            return
        try:
            case = cases.open_case(backend, name, data, suggestions=suggestions)
        except BackendError as error:
            self.refused = Refused(name, data, suggestions, error)
            return
        self.cases = _recent([*self.cases, case])
        self.open_id = case.id

    def turn_looked_at(self) -> Turn | None:
        """The turn whose heat is shown."""
        if self.case is None or not self.case.turns:
            return None
        chosen = [turn for turn in self.case.turns if turn.id == self.look_at]
        return chosen[0] if chosen else self.case.turns[-1]


def _recent(found: list[Case]) -> list[Case]:
    """The newest, as many as may be kept."""
    kept, size = found[-1:], len(found[-1].data)
    for case in reversed(found[-_MOST_CASES:-1]):
        size += len(case.data)
        if size > MOST_BYTES:
            break
        kept.insert(0, case)
    return kept
