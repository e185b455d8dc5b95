"""Settings in; an engine factory, the bounds of the queue, or a transcriber without a server out.

Imports torch only when a factory is called, in the engine thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from service.queue import QueuePolicy
from service.scheduler import Scheduler
from service.settings import Settings
from service.transcriber import Transcriber

if TYPE_CHECKING:
    from models.engine import Engine  # Its module imports torch.

FAKE: Final = "fake"
"""The model name of `models.fake.FakeEngine`: for tests, image checks and those who build on the API."""

EngineFactory = Callable[[], "Engine"]


def engine_factory(settings: Settings) -> EngineFactory:
    """A function that builds the engine; it may take minutes, and raises what `models.load_engine` raises."""
    if settings.model == FAKE:
        return _build_fake

    def build() -> "Engine":
        from models import load_engine

        return load_engine(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            sha256=settings.model_sha256,
            timestamps=settings.timestamps,
        )

    return build


def queue_policy(settings: Settings) -> QueuePolicy:
    """The bounds of the queue."""
    return QueuePolicy(
        max_batch_seconds=settings.max_batch_seconds,
        max_active_seconds=settings.max_active_seconds,
        max_queue_seconds=settings.max_queue_seconds,
        max_wait=settings.max_wait_ms / 1000,
    )


@contextmanager
def local_transcriber(settings: Settings, factory: EngineFactory) -> Iterator[Transcriber]:
    """A transcriber in this process, ready to work, for the command line.

    Its queue has no bound: whoever works through a folder waits, and is not refused.

    Raises:
        EngineDeadError: The engine could not be built; the cause is attached.
    """
    policy = replace(queue_policy(settings), max_queue_seconds=float("inf"))
    scheduler = Scheduler(factory, policy)
    transcriber = Transcriber(scheduler, settings)
    scheduler.start()
    try:
        scheduler.wait_ready()
        yield transcriber
    finally:
        scheduler.stop(0.0)
        transcriber.close()


def _build_fake() -> "Engine":
    from models.fake import FakeEngine

    return FakeEngine()
