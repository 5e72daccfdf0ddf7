"""The model that every figure on SLAKE's validation split is measured with.

The model that ships learned from the validation rows too, once its recipe was chosen (decision 0015). This one is of
the same recipe and learned from the training rows alone; scores, thresholds and reliability in the shipped model's card
are those of this one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medical_vqa.schema.bundle_card import BundleCard

MEASURED = Path(__file__).parent / "models" / "slake-compact-trunk"
"""Its bundle."""


def require_unseen(card: BundleCard) -> None:
    """Exit with one sentence when a model learned from the rows that are about to measure it."""
    if card.data is not None and card.data.selection.learns_validation:
        sys.exit(f"{card.name} learned from the validation rows, so they do not measure it; measure {MEASURED}")
