"""Logs: one line per event, as text or JSON, each with the id of the request that it is about."""

import json
import logging
import re
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import reply_to

REQUEST_ID_HEADER: Final = "X-Request-ID"

_log = logging.getLogger("service.access")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# What a caller may choose: a header cannot carry line breaks into the log, and a log line stays short.
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

# They tell at "info" what they do to each utterance.
_CHATTY: Final = ("ctc_segmentation",)


class RequestLog:
    """ASGI middleware: names the request, logs how it ended, and answers errors that nobody foresaw.

    The caller's ``X-Request-ID`` is kept if it is harmless, and sent back.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = sent if _SAFE_ID.fullmatch(sent) else uuid.uuid4().hex
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        token = _request_id.set(request_id)
        began = time.monotonic()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            _log.exception("request failed")
            if status:
                raise
            reply = reply_to(error)
            await JSONResponse(reply.body, reply.status, reply.headers)(scope, receive, send_with_id)
        finally:
            _log.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                status,
                extra={"seconds": round(time.monotonic() - began, 4)},
            )
            _request_id.reset(token)


class TextFormatter(logging.Formatter):
    """``time level [request] logger: message``."""

    def format(self, record: logging.LogRecord) -> str:
        """One event; only a traceback takes more lines."""
        request_id = _request_id.get()
        text = f"{_time(record)} {record.levelname.lower():8} {f'[{request_id}] ' if request_id else ''}"
        # A path may hold an encoded line break.
        text += f"{record.name}: {_one_line(record.getMessage())}"
        seconds = getattr(record, "seconds", None)
        text += f" in {seconds:g} s" if seconds is not None else ""
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        event: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := _request_id.get():
            event["request_id"] = request_id
        if (seconds := getattr(record, "seconds", None)) is not None:
            event["seconds"] = seconds
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


def set_up_logging(level: str, log_format: str) -> None:
    """Sends all logs to the standard error output; called by the command line, never by an import."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
