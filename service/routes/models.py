"""``GET /v1/models``: what is served."""

from fastapi import APIRouter, Request

from service.routes.access import TheTranscriber, check_model
from service.schemas import ErrorReply, ModelInfo, ModelList

router = APIRouter(tags=["models"], responses={"4XX": {"model": ErrorReply}, "5XX": {"model": ErrorReply}})


@router.get("/models")
async def list_models(request: Request, transcriber: TheTranscriber) -> ModelList:
    """Lists the model under its id and its aliases."""
    card = transcriber.scheduler.card
    names = dict.fromkeys([card.id, *transcriber.settings.model_aliases])
    return ModelList(
        data=tuple(ModelInfo(id=name, created=request.app.state.created, owned_by=card.owner) for name in names)
    )


# Ids may contain a slash: nvidia/canary-1b-v2.
@router.get("/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str, transcriber: TheTranscriber) -> ModelInfo:
    """Describes one model."""
    card = transcriber.scheduler.card
    check_model(model_id, card, transcriber.settings)
    return ModelInfo(id=model_id, created=request.app.state.created, owned_by=card.owner)
