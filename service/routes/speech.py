"""The way of a speech request through HTTP, which transcriptions and translations share."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request, Response

from service.errors import ClientGoneError, MissingFieldError
from service.formats import FORMATS
from service.routes.access import check_model
from service.schemas import ErrorReply, SpeechForm, TranscriptionJson, TranscriptionVerbose, parse_form
from service.transcriber import Order, Transcriber
from service.uploads import FILE_FIELD, receive_upload

T = TypeVar("T")
Form = TypeVar("Form", bound=SpeechForm)

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": TranscriptionJson | TranscriptionVerbose,
        "description": "The text, in the format that was asked for.",
        "content": {
            kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/x-subrip", "text/vtt")
        },
    },
    "4XX": {
        "model": ErrorReply,
        "description": "400: a bad value, or audio that cannot be decoded. 401: a wrong API key. 404: no such model. "
        "413: too many bytes or seconds. 415: not audio. 422: a required field is missing.",
    },
    "5XX": {
        "model": ErrorReply,
        "description": "500: the engine failed on this audio. 503: overloaded, loading or stopping; Retry-After says "
        "when to try again.",
    },
}
"""For the OpenAPI description."""


def describe_form(form: type[SpeechForm]) -> dict[str, Any]:
    """The request body for the OpenAPI description: the form and its file."""
    schema = form.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "Audio or video in any common container and codec."}
    schema["properties"] = {FILE_FIELD: file, **schema["properties"]}
    schema["required"] = [FILE_FIELD, *schema["required"]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def answer(
    request: Request, transcriber: Transcriber, form_type: type[Form], to_order: Callable[[Form], Order]
) -> Response:
    """Reads the form and its file, has the speech written down, and writes the answer.

    Raises:
        AviaryError: One of the table in `service.errors`.
    """
    settings = transcriber.settings
    # Before the upload: what will be refused need not be sent.
    transcriber.scheduler.check_accepting()
    async with receive_upload(request, max_bytes=settings.max_upload_bytes, folder=settings.upload_folder) as upload:
        form = parse_form(form_type, upload.fields)
        check_model(form.model, transcriber.scheduler.card, settings)
        if upload.file is None:
            raise MissingFieldError(f"the field {FILE_FIELD} is required", param=FILE_FIELD)
        transcript = await _while_connected(request, transcriber.transcribe(upload.file, to_order(form)))
    chosen = FORMATS[form.response_format]
    return Response(chosen.write(transcript, form.timestamp_granularities), media_type=chosen.media_type)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Waits for the work, or cancels it if the caller hangs up.

    Raises:
        ClientGoneError: The caller hung up.
    """
    task = asyncio.create_task(work)
    # The body has been read, so the next message can only be that the caller is gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError("the client hung up while waiting")
    finally:
        # Both, and also if this coroutine itself was cancelled: the work must not outlive its request.
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
