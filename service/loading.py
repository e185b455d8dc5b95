"""Which engine the settings ask for. Imports torch only when the factory is called, in the engine thread."""

from collections.abc import Callable
from typing import Final

from models.engine import Engine
from service.settings import Settings

FAKE: Final = "fake"
"""The model name of `models.fake.FakeEngine`: for tests, image checks and those who build on the API."""

EngineFactory = Callable[[], Engine]


def engine_factory(settings: Settings) -> EngineFactory:
    """A function that builds the engine; it may take minutes, and raises what `models.load_engine` raises."""
    if settings.model == FAKE:
        return _build_fake

    def build() -> Engine:
        from models import load_engine

        return load_engine(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            sha256=settings.model_sha256,
            timestamps=settings.timestamps,
        )

    return build


def _build_fake() -> Engine:
    from models.fake import FakeEngine

    return FakeEngine()
