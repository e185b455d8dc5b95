"""``/health``: whether the process lives, and whether it takes requests. No API key is needed."""

from fastapi import APIRouter, Response

from service.routes.access import TheTranscriber
from service.scheduler import Phase
from service.schemas import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live(transcriber: TheTranscriber) -> Health:
    """Answers as long as the process can answer."""
    return Health(status="live", model=transcriber.settings.model)


@router.get("/ready", responses={503: {"model": Health, "description": "Not ready; the status says why."}})
async def ready(response: Response, transcriber: TheTranscriber) -> Health:
    """Answers 200 once the model is loaded and warm, and 503 before that and when the service is going down."""
    phase = transcriber.scheduler.phase
    response.status_code = 200 if phase is Phase.READY else 503
    return Health(status=phase.value, model=transcriber.settings.model)
