"""``POST /v1/audio/translations``: speech in, text in another language out."""

from fastapi import APIRouter, Request, Response

from service.routes.access import TheTranscriber
from service.routes.speech import RESPONSES, answer, describe_form
from service.schemas import TranslationForm
from service.transcriber import Order

router = APIRouter(tags=["audio"])


@router.post(
    "/audio/translations",
    responses=RESPONSES,
    openapi_extra=describe_form(TranslationForm),
    response_class=Response,
)
async def create_translation(request: Request, transcriber: TheTranscriber) -> Response:
    """Writes in another language, English if not told otherwise, what is said in an audio or video file.

    Speech that is in the target language already is transcribed.
    """
    return await answer(request, transcriber, TranslationForm, _order)


def _order(form: TranslationForm) -> Order:
    return Order(
        language=form.language,
        target_language=form.target_language,
        timestamps=form.is_timed,
        context=form.prompt,
    )
