"""What routes share: the way to the transcriber, and the check of the API key."""

import hmac
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from models.types import ModelCard
from service.errors import AuthenticationError, ModelNotFoundError
from service.settings import Settings
from service.transcriber import Transcriber


def _transcriber(request: Request) -> Transcriber:
    return cast("Transcriber", request.app.state.transcriber)


TheTranscriber = Annotated[Transcriber, Depends(_transcriber)]

_bearer = HTTPBearer(auto_error=False, description="Only if the server has an API key.")


def require_api_key(
    transcriber: TheTranscriber, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Lets everyone in if no key is set.

    Raises:
        AuthenticationError: The key is missing or wrong.
    """
    key = transcriber.settings.api_key
    if key is None:
        return
    if sent is None:
        raise AuthenticationError("send the API key as 'Authorization: Bearer KEY'", code="missing_api_key")
    # In constant time: how long it takes must not tell how much of the key was right. Starlette reads headers as
    # Latin-1, which gives back the bytes that were sent.
    if not hmac.compare_digest(sent.credentials.encode("latin-1"), key.get_secret_value().encode()):
        raise AuthenticationError("the API key is wrong")


def check_model(name: str, card: ModelCard, settings: Settings) -> None:
    """Lets the id of the model and its configured aliases pass.

    Raises:
        ModelNotFoundError: It is neither.
    """
    if name != card.id and name not in settings.model_aliases:
        raise ModelNotFoundError(f"the model {name!r} is not served here; {card.id!r} is")
