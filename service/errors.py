"""What can go wrong with a request, and the one table that says how each error looks on the wire.

    AviaryError (models.errors)
    └── ServiceError
        ├── RequestError                 a field has a bad value
        │   ├── MissingFieldError        a required field is not there
        │   ├── LanguageRequiredError    nobody said what is spoken
        │   └── UnsupportedError         OpenAI has it, we do not
        ├── AuthenticationError          the API key is missing or wrong
        ├── ModelNotFoundError           no such model is served
        ├── UploadTooLargeError          more bytes than the limit
        ├── ClientGoneError              the caller hung up; nobody reads the answer
        ├── OverloadedError              too much audio waits
        ├── NotReadyError                the model is being loaded
        ├── StoppingError                the service is going down
        └── EngineDeadError              the engine thread died

Every answer with an error has OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from models.errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    AviaryError,
    CorruptAudioError,
    LanguageError,
    NotAudioError,
    OptionError,
)


class ServiceError(AviaryError):
    """Base of the errors that the service raises.

    Attributes:
        param: The field that is to blame, if one is.
        code: Says more than the table's code, if set.
        retry_after: Seconds after which another try makes sense, if one does.
    """

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.retry_after = retry_after


class RequestError(ServiceError):
    """A field has a bad value."""


class MissingFieldError(RequestError):
    """A required field is not there."""


class LanguageRequiredError(RequestError):
    """The request does not say what is spoken, and there is no default."""


class UnsupportedError(RequestError):
    """Something that OpenAI's API has and we do not."""


class AuthenticationError(ServiceError):
    """The API key is missing or wrong."""


class ModelNotFoundError(ServiceError):
    """No such model is served."""


class UploadTooLargeError(ServiceError):
    """The upload has more bytes than the limit."""


class ClientGoneError(ServiceError):
    """The caller hung up; the answer is for the log only."""


class OverloadedError(ServiceError):
    """Too much audio waits."""


class NotReadyError(ServiceError):
    """The model is being loaded."""


class StoppingError(ServiceError):
    """The service is going down."""


class EngineDeadError(ServiceError):
    """The engine thread died; the process is about to end."""


@dataclass(frozen=True, slots=True)
class Row:
    """How an error looks on the wire."""

    status: int
    type: str
    code: str
    param: str | None = None


_BAD: Final = "invalid_request_error"
_OURS: Final = "server_error"

_INTERNAL: Final = Row(500, _OURS, "internal_error")

TABLE: Final = MappingProxyType(
    {
        RequestError: Row(400, _BAD, "invalid_value"),
        UnsupportedError: Row(400, _BAD, "unsupported_value"),
        LanguageRequiredError: Row(400, _BAD, "language_required", "language"),
        LanguageError: Row(400, _BAD, "unsupported_language", "language"),
        OptionError: Row(400, _BAD, "invalid_value"),
        CorruptAudioError: Row(400, _BAD, "corrupt_audio", "file"),
        AudioTooShortError: Row(400, _BAD, "audio_too_short", "file"),
        AudioError: Row(400, _BAD, "invalid_audio", "file"),
        AuthenticationError: Row(401, _BAD, "invalid_api_key"),
        ModelNotFoundError: Row(404, _BAD, "model_not_found", "model"),
        UploadTooLargeError: Row(413, _BAD, "upload_too_large", "file"),
        AudioTooLongError: Row(413, _BAD, "audio_too_long", "file"),
        NotAudioError: Row(415, _BAD, "unsupported_media", "file"),
        MissingFieldError: Row(422, _BAD, "missing_required_parameter"),
        ClientGoneError: Row(499, _BAD, "client_closed_request"),
        OverloadedError: Row(503, _OURS, "overloaded"),
        NotReadyError: Row(503, _OURS, "model_loading"),
        StoppingError: Row(503, _OURS, "stopping"),
        EngineDeadError: Row(503, _OURS, "engine_dead"),
        Exception: _INTERNAL,
    }
)
"""The nearest class in an error's line of ancestors decides."""

_HTTP_CODES: Final = MappingProxyType({404: "not_found", 405: "method_not_allowed"})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that tells of an error."""

    status: int
    body: dict[str, dict[str, str | None]]
    headers: dict[str, str]


def reply_to(error: Exception) -> Reply:
    """The answer to an error; what is not in the table is a 500 that tells nothing about our insides."""
    row = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    if row is _INTERNAL and not isinstance(error, AviaryError):
        return _reply(row, "the server failed on this request; its log tells why", row.code, None)
    if not isinstance(error, ServiceError):
        return _reply(row, str(error), row.code, row.param)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if row.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _reply(row, str(error), error.code or row.code, error.param or row.param, headers)


def reply_to_status(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    """The answer to what the web framework refuses by itself: unknown routes, methods that a route has not."""
    kind = _BAD if status < 500 else _OURS
    return _reply(Row(status, kind, ""), message, _HTTP_CODES.get(status, "invalid_request"), None, headers)


def _reply(row: Row, message: str, code: str, param: str | None, headers: dict[str, str] | None = None) -> Reply:
    body = {"error": {"message": message, "type": row.type, "param": param, "code": code}}
    return Reply(row.status, body, headers or {})
