"""The table of errors: every error that may reach a caller has a row, and every row its shape."""

import inspect

import pytest

from models import errors as library
from service import errors as service
from service.errors import TABLE, OverloadedError, RequestError, ServiceError, reply_to, reply_to_status
from service.schemas import ErrorReply

SERVICE_ERRORS = [
    value for value in vars(service).values() if inspect.isclass(value) and issubclass(value, ServiceError)
]

EXPECTED = {
    library.AudioTooLongError: (413, "audio_too_long"),
    library.AudioTooShortError: (400, "audio_too_short"),
    library.CorruptAudioError: (400, "corrupt_audio"),
    library.NotAudioError: (415, "unsupported_media"),
    library.LanguageError: (400, "unsupported_language"),
    library.OptionError: (400, "invalid_value"),
    library.EngineError: (500, "internal_error"),
    service.RequestError: (400, "invalid_value"),
    service.MissingFieldError: (422, "missing_required_parameter"),
    service.LanguageRequiredError: (400, "language_required"),
    service.UnsupportedError: (400, "unsupported_value"),
    service.AuthenticationError: (401, "invalid_api_key"),
    service.ModelNotFoundError: (404, "model_not_found"),
    service.UploadTooLargeError: (413, "upload_too_large"),
    service.ClientGoneError: (499, "client_closed_request"),
    service.OverloadedError: (503, "overloaded"),
    service.NotReadyError: (503, "model_loading"),
    service.StoppingError: (503, "stopping"),
    service.EngineDeadError: (503, "engine_dead"),
}


@pytest.mark.parametrize("cls", EXPECTED)
def test_row(cls):
    reply = reply_to(cls("a message for the caller"))
    error = ErrorReply.model_validate(reply.body, strict=True).error
    assert (reply.status, error.code) == EXPECTED[cls]
    assert error.message == "a message for the caller"
    assert error.type == ("server_error" if reply.status >= 500 else "invalid_request_error")


def test_every_error_of_the_service_has_a_row():
    assert set(SERVICE_ERRORS) - {ServiceError} == {cls for cls in EXPECTED if issubclass(cls, ServiceError)}
    assert {cls for cls in SERVICE_ERRORS if cls in TABLE} == set(SERVICE_ERRORS) - {ServiceError}


def test_what_nobody_foresaw_tells_nothing():
    reply = reply_to(KeyError("/secret/path"))
    assert reply.status == 500
    assert "secret" not in str(reply.body)


def test_an_error_may_say_more_than_its_row():
    reply = reply_to(RequestError("no", param="language", code="special"))
    assert reply.body["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "language",
        "code": "special",
    }


def test_retry_after_is_in_whole_seconds_and_not_too_early():
    assert reply_to(OverloadedError("busy", retry_after=1.2)).headers == {"Retry-After": "2"}


def test_a_key_is_asked_for():
    assert reply_to(service.AuthenticationError("no")).headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (400, "invalid_request")]
)
def test_what_the_framework_refuses(status, code):
    reply = reply_to_status(status, "no", {"Allow": "GET"})
    assert (reply.status, reply.headers, reply.body["error"]["code"]) == (status, {"Allow": "GET"}, code)
