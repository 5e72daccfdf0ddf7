"""Published results for context, each with the protocol that makes it hard to compare.

All figures are per cent, as their authors report them, on the *test* split of the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """Results of one system on one dataset."""

    dataset: str
    """``slake`` or ``vqa-rad``."""
    system: str
    """Name of the system."""
    protocol: str
    """How it was scored, and other differences."""
    open: float | None = None
    """Open questions, per cent."""
    closed: float | None = None
    """Closed questions, per cent."""
    overall: float | None = None
    """All questions, per cent."""
    f1: float | None = None
    """Token F1 over all questions, per cent."""


_REIMPLEMENTED = "squad_v2; best epoch chosen on test; the system this project re-implements"
_LABELS = "classifier; the answers of the test split are in its label set"
_RANKED = "answers ranked over a closed list; trained on train and validation"
_EPOCHS = "answers ranked over a closed list; every epoch scored on test"
_SINGLE = "one accuracy over all questions; trained on train and validation"
_RECALL = "open questions by token recall, not by equality"
_JUDGED = "answers judged by a large language model"

PUBLISHED = (
    PublishedRow("slake", "BLIP-2 flan-t5-xl + LoRA", _REIMPLEMENTED, overall=75.8, f1=79.6),
    PublishedRow("slake", "MEVF+BAN", "classifier", overall=78.6),
    PublishedRow("slake", "PubMedCLIP", _LABELS, open=78.4, closed=82.5, overall=80.1),
    PublishedRow("slake", "M2I2", _RANKED, open=74.7, closed=91.1, overall=81.2),
    PublishedRow("slake", "M3AE", _LABELS, overall=83.2),
    PublishedRow("slake", "MUMC", _EPOCHS, overall=84.9),
    PublishedRow("slake", "VILA-M3-8B", _SINGLE, overall=84.5),
    PublishedRow("slake", "BiomedCLIP", "classifier in the style of QCR", open=82.1, closed=89.7),
    PublishedRow("slake", "LLaVA-Med", _RECALL, open=87.1, closed=86.8),
    PublishedRow("slake", "Lingshu-32B", _JUDGED, overall=89.2),
    PublishedRow("slake", "Hulu-Med-32B", _JUDGED, overall=85.7),
    PublishedRow("vqa-rad", "MEVF+BAN", "classifier; freeform rows only", open=43.9, closed=75.1, overall=62.6),
    PublishedRow("vqa-rad", "PubMedCLIP", _LABELS, open=60.1, closed=80.0, overall=72.1),
    PublishedRow("vqa-rad", "M2I2", _RANKED, open=66.5, closed=83.5),
    PublishedRow("vqa-rad", "M3AE", _LABELS, open=67.2, closed=83.5, overall=77.0),
    PublishedRow("vqa-rad", "MUMC", _EPOCHS, open=71.5, closed=84.2, overall=79.2),
    PublishedRow("vqa-rad", "VILA-M3-8B", _SINGLE, overall=84.5),
    PublishedRow("vqa-rad", "BiomedCLIP", "classifier in the style of QCR", open=67.6, closed=79.8),
    PublishedRow("vqa-rad", "LLaVA-Med", _RECALL, open=64.8, closed=83.1),
    PublishedRow("vqa-rad", "Lingshu-32B", _JUDGED, overall=76.5),
    PublishedRow("vqa-rad", "Hulu-Med-32B", _JUDGED, overall=81.4),
)


def published(dataset: str) -> list[PublishedRow]:
    """The rows of a dataset; a sample of it (``slake-mini``) has none, because its numbers compare with nothing."""
    return [row for row in PUBLISHED if row.dataset == dataset]


def caveat(split: str) -> str:
    """Why these rows and a score on `split` are not one ranking."""
    where = "All scores" if split == "test" else f"This model was scored on {split}; published scores"
    return f"{where} are on the test split. Protocols and training data differ from row to row: context, not a ranking."
