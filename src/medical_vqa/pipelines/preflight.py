"""The check before the first training step: the bundle of an untrained model is saved, read back, and answers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.errors import MedicalVqaError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.pipelines.training_inputs import model_card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medical_vqa.models.base import VqaModel
    from medical_vqa.pipelines.training_inputs import TrainingInputs, TrainingPart
    from medical_vqa.schema.records import Example


def check_bundle(inputs: TrainingInputs, device: str) -> None:
    """Save, read back and ask an untrained model about a picture that is in no cache, as `ask` does after training.

    The questions are the longest, so that one with more tokens than the model reads is refused here. One model is in
    memory at a time.

    Args:
        inputs: What the recipe resolves to.
        device: Device that answers.

    Raises:
        ModelError: Something fails here that would fail after hours of training.
    """
    import torch

    from medical_vqa.models.bundle import load_bundle, write_bundle

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        model = inputs.family.model_class().build(inputs.rows, **inputs.options)
        try:
            write_bundle(folder, model_card(inputs, model), model.save)
            del model
            loaded, card = load_bundle(folder, device=torch.device(device))
            learned = [(part, row) for part in inputs.parts for row in part.rows]
            held_out = [(part, row) for part in inputs.parts for row in part.validation_rows]
            for rows in filter(None, (learned, held_out)):
                loaded.answer([_longest(inputs, rows, loaded)], card.decoding)
        except torch.OutOfMemoryError:
            raise
        except MedicalVqaError as error:
            raise ModelError(f"{error} (checked before training; nothing was trained)") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"a bundle of {inputs.recipe.model.family} was saved and read back, and then could not answer a new "
                f"picture ({type(error).__name__}: {reason}); nothing was trained: change the recipe's model section"
            ) from error


def _longest(inputs: TrainingInputs, rows: Sequence[tuple[TrainingPart, Example]], model: VqaModel) -> Query:
    """The longest of some rows as a question about pictures that are in no cache."""
    part, row = max(rows, key=lambda pair: inputs.length_of(pair[1]))
    images, spec = part.selected.dataset.images, model.picture

    def picture(image_id: str) -> NDArray[np.uint8]:
        return NO_PICTURE if spec is None else prepare_picture(images.load(image_id), spec)

    query = Query(row.id, row.question, row.image_id, picture(row.image_id))
    if not model.reads_conversations:
        return query
    return replace(
        query,
        other_visuals=tuple(map(picture, row.other_image_ids)),
        other_images=row.other_image_ids,
        turns=tuple((turn.question, turn.answer) for turn in row.turns),
        system=row.system,
        image_places=row.image_places,
    )
