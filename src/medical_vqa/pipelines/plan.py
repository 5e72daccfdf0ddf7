"""Estimate what training by a recipe takes, before any weight is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.training_inputs import TrainingInputs, images_of, training_inputs

if TYPE_CHECKING:
    from medical_vqa.config import Recipe
    from medical_vqa.training.plan import Plan


def plan(recipe: Recipe) -> Plan:
    """Parameters, memory and steps of training by a recipe; raises as `train` does."""
    return plan_of(training_inputs(recipe))


def plan_of(inputs: TrainingInputs) -> Plan:
    """The plan of a recipe that is resolved already; raises `ConfigError` for a family that is counted in one pass."""
    from medical_vqa.models.memory import estimate_memory
    from medical_vqa.runtime.devices import choose_device, device_memory
    from medical_vqa.training.plan import Plan, count_steps

    compute, settings, options = inputs.compute, inputs.recipe.training, inputs.options
    if compute is None:
        raise ConfigError(f"{inputs.family.family} is counted in one pass and needs no plan; train it")
    model_class = inputs.family.model_class()
    if inputs.family.estimates_memory:
        estimate = model_class.memory_estimate(inputs.rows, **options)
    else:
        estimate = estimate_memory(model_class.build(inputs.rows, **options).module)
    images = [row.image_id for row in inputs.rows]  # of different datasets different ids, although an image be the same
    return Plan(
        estimate,
        estimate.memory(
            batch_size=settings.batch_size,
            precision=compute.precision,
            features=options.get("features", False),
            checkpointing=options.get("gradient_checkpointing", False),
        ),
        rows=len(images),
        images=len(images_of(inputs.rows)),
        steps=count_steps(
            images,
            inputs.question_lengths,
            weights=inputs.weights,
            **settings.model_dump(include={"epochs", "batch_size", "grouping", "accumulate", "seed"}),
        ),
        device=f"{compute.device}, {compute.precision}",
        available=device_memory(choose_device(settings.device)),
        note=inputs.note,
    )
