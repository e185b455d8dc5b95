"""The composition root: settings and an engine factory in, a service out. Builds, starts, stops in reverse."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from models.errors import AviaryError
from service.errors import Reply, RequestError, reply_to, reply_to_status
from service.loading import EngineFactory, queue_policy
from service.logs import RequestLog
from service.routes import all_routes
from service.scheduler import Scheduler
from service.settings import Settings
from service.transcriber import Transcriber

_log = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 5.0
"""After the drain, how long those who were failed may take to read their answers."""


def create_app(
    settings: Settings,
    engine_factory: EngineFactory,
    *,
    on_death: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """Builds the service; its lifespan starts and stops the engine thread.

    Args:
        settings: All of them.
        engine_factory: Called once, in the engine thread.
        on_death: Called if the engine thread dies; the process should end then.
    """
    scheduler = Scheduler(engine_factory, queue_policy(settings), on_death=on_death)
    transcriber = Transcriber(scheduler, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        try:
            yield
        finally:
            await asyncio.to_thread(scheduler.stop, settings.drain_seconds)
            transcriber.close()

    app = FastAPI(
        title="Aviary",
        version="1",
        description="Speech recognition and translation with an OpenAI-compatible API.",
        lifespan=lifespan,
    )
    app.state.transcriber = transcriber
    app.state.created = int(time.time())
    app.include_router(all_routes())
    app.add_middleware(RequestLog)
    app.add_exception_handler(AviaryError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return app


def run(settings: Settings, engine_factory: EngineFactory) -> int:
    """Serves until a signal comes or the engine dies; returns the exit status."""

    def end(error: BaseException) -> None:
        _log.critical("the service ends, for its engine died: %s", error)
        server.should_exit = True

    app = create_app(settings, engine_factory, on_death=end)
    scheduler: Scheduler = app.state.transcriber.scheduler
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Ours are set up already.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain_seconds + LAST_WORDS_SECONDS),
    )
    server = _Server(config, lambda: scheduler.stop(settings.drain_seconds))
    try:
        server.run()
    except KeyboardInterrupt:
        # The server has stopped in good order, and tells so in the way of the shell.
        return 130
    return 0 if scheduler.death is None else 1


class _Server(uvicorn.Server):
    """Begins to drain when the signal comes; uvicorn would first wait for all requests, and cut them off."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        threading.Thread(target=self._drain, name="drain", daemon=True).start()
        super().handle_exit(sig, frame)


async def _on_error(_: Request, error: Exception) -> JSONResponse:
    return _to_response(reply_to(error))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette types all handlers alike
    messages = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
    }
    message = messages.get(error.status_code, error.detail)
    return _to_response(reply_to_status(error.status_code, message, dict(error.headers or {})))


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - Starlette types all handlers alike
    first = error.errors()[0]
    return _to_response(reply_to(RequestError(str(first["msg"]), param=str(first["loc"][-1]))))


def _to_response(reply: Reply) -> JSONResponse:
    return JSONResponse(reply.body, reply.status, reply.headers)
