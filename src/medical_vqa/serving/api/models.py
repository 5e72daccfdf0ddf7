"""Routes of the models of this server: listed for everyone, loaded, weighted and removed by the role admin."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.models import Models, ServedModel
from medical_vqa.serving.schema.common import MODEL_NAME
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.models import FractionRequest, LoadModelRequest, ServedModelInfo, ServedModels

router = APIRouter(tags=["models"])
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the body is not JSON"},
    401: {"model": Problem, "description": "no key, or an unknown one"},
    403: {"model": Problem, "description": "the key lacks the role admin, or the server has no keys"},
    404: {"model": Problem, "description": "no such model"},
    422: {"model": Problem, "description": "the model cannot be loaded, or a field is wrong"},
    429: {"model": Problem, "description": "too many requests"},
}
Name = Annotated[str, Path(pattern=MODEL_NAME, description="Of the model on this server.")]


async def get_models(request: Request) -> Models:
    """The models of the application that received a request."""
    models: Models = request.app.state.models
    return models


ModelsDependency = Annotated[Models, Depends(get_models)]


def _require_change(models: Models) -> None:
    """Without keys everyone would have the role admin, and could load any file as a model."""
    settings = models.default.settings
    if settings.workers > 1:
        raise ApiError(403, "forbidden", "several workers serve, and a change would reach one; restart the server")
    if not settings.api_keys and settings.keys_file is None:
        raise ApiError(403, "forbidden", "models are changed with a key of the role admin, and this server has no keys")


@router.get("/models", responses={status: _ERRORS[status] for status in (401, 429)})
async def served_models(models: ModelsDependency) -> ServedModels:
    """The models that answer here, with their queues and memory."""
    return ServedModels(models=[_info(models, model) for model in models])


@router.put("/models/{name}", responses=_ERRORS)
async def load_model(name: Name, body: LoadModelRequest, models: ModelsDependency) -> ServedModelInfo:
    """Load a model, or replace the one of this name without interrupting anyone."""
    _require_change(models)
    return _info(models, await models.load(name, body.model, body.fraction))


@router.post("/models/{name}/fraction", responses=_ERRORS)
async def set_fraction(name: Name, body: FractionRequest, models: ModelsDependency) -> ServedModelInfo:
    """Change a canary's part of the images; 1 makes it the default model."""
    _require_change(models)
    return _info(models, models.set_fraction(name, body.fraction))


@router.delete("/models/{name}", status_code=204, responses=_ERRORS)
async def remove_model(name: Name, models: ModelsDependency) -> Response:
    """Remove a model; questions that it has accepted are still answered."""
    _require_change(models)
    models.remove(name)
    return Response(status_code=204)


def _info(models: Models, model: ServedModel) -> ServedModelInfo:
    engine = model.service.engine
    others = sum(other.fraction for other in models if not models.is_default(other))
    return ServedModelInfo(
        name=model.name,
        family=engine.card.family,
        id=engine.id,
        version=engine.card.version,
        is_default=models.is_default(model),
        fraction=1 - others if models.is_default(model) else model.fraction,
        ready=engine.ready,
        queue=engine.waiting,
        memory_bytes=model.memory_bytes,
        loaded_at=model.loaded_at,
    )
