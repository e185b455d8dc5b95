"""``POST /v1/audio/transcriptions``: speech in, text in the same language out."""

from fastapi import APIRouter, Request, Response

from service.routes.access import TheTranscriber
from service.routes.speech import RESPONSES, answer, describe_form
from service.schemas import TranscriptionForm
from service.transcriber import Order

router = APIRouter(tags=["audio"])


@router.post(
    "/audio/transcriptions",
    responses=RESPONSES,
    openapi_extra=describe_form(TranscriptionForm),
    response_class=Response,
)
async def create_transcription(request: Request, transcriber: TheTranscriber) -> Response:
    """Writes down what is said in an audio or video file."""
    return await answer(request, transcriber, TranscriptionForm, _order)


def _order(form: TranscriptionForm) -> Order:
    return Order(language=form.language, timestamps=form.is_timed, context=form.prompt)
