"""Shared fixtures: audio made of loud and quiet half seconds, and the service over a FakeEngine."""

import io
import os
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from starlette.testclient import TestClient

from models.fake import SLOT_SECONDS, FakeEngine
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Utterance
from service.app import create_app
from service.settings import Settings

DEADLINE = 60.0

# How long an example takes says something about the machine, not about the code.
hypothesis_settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AVIARY_"):
            monkeypatch.delenv(name)


def _samples(pattern: str) -> np.ndarray:
    tone = 0.5 * np.sin(np.arange(round(SLOT_SECONDS * SAMPLE_RATE)) * 0.1)
    return np.concatenate([tone * (mark == "x") for mark in pattern]).astype(np.float32)


@pytest.fixture
def make_audio() -> Callable[[str], Audio]:
    """``x`` is half a second of tone, ``.`` half a second of silence."""
    return lambda pattern: Audio(_samples(pattern))


@pytest.fixture
def make_wav() -> Callable[[str], bytes]:
    def make(pattern: str) -> bytes:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((_samples(pattern) * 32767).astype("<i2").tobytes())
        return buffer.getvalue()

    return make


@pytest.fixture
def make_utterance(make_audio: Callable[[str], Audio]) -> Callable[..., Utterance]:
    def make(
        pattern: str = "x", offset: float = 0.0, source: str = "en", target: str = "en", **more: object
    ) -> Utterance:
        return Utterance(Chunk(make_audio(pattern), offset), DecodingOptions(source, target, **more))

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Polls a condition that another thread will make true; fails after a deadline."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.002)

    return wait


@pytest.fixture
def serving() -> Callable[..., AbstractContextManager[TestClient]]:
    """The service over a given engine, ready."""

    @contextmanager
    def serve(engine: FakeEngine | None = None, *, wait: bool = True, **settings: object) -> Iterator[TestClient]:
        app = create_app(
            Settings(**{"drain_seconds": 0.0, "max_wait_ms": 0.0, **settings}), lambda: engine or FakeEngine()
        )
        with TestClient(app, raise_server_exceptions=False) as client:
            if wait:
                app.state.transcriber.scheduler.wait_ready(DEADLINE)
            yield client

    return serve


@pytest.fixture
def client(serving: Callable[..., AbstractContextManager[TestClient]]) -> Iterator[TestClient]:
    with serving() as client:
        yield client
