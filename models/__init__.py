"""Aviary's speech library: audio in, timed words out.

    from models import load_engine

    engine = load_engine("canary-mini")

The names in `__all__` are the public face. Each is imported when it is first used, so that importing this package
imports neither torch nor anything else that is slow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.engine import Engine, SpeechEngine, load_engine
    from models.errors import (
        AudioError,
        AudioTooLongError,
        AudioTooShortError,
        AviaryError,
        CheckpointError,
        CorruptAudioError,
        DeviceError,
        EngineError,
        LanguageError,
        NotAudioError,
        OptionError,
        UnknownModelError,
    )
    from models.fake import FakeEngine
    from models.languages import LANGUAGES, parse_language
    from models.registry import KNOWN
    from models.types import (
        SAMPLE_RATE,
        Audio,
        Chunk,
        DecodingOptions,
        Hypothesis,
        ModelCard,
        Segment,
        Transcript,
        Utterance,
        Word,
    )

__all__ = [
    "KNOWN",
    "LANGUAGES",
    "SAMPLE_RATE",
    "Audio",
    "AudioError",
    "AudioTooLongError",
    "AudioTooShortError",
    "AviaryError",
    "CheckpointError",
    "Chunk",
    "CorruptAudioError",
    "DecodingOptions",
    "DeviceError",
    "Engine",
    "EngineError",
    "FakeEngine",
    "Hypothesis",
    "LanguageError",
    "ModelCard",
    "NotAudioError",
    "OptionError",
    "Segment",
    "SpeechEngine",
    "Transcript",
    "UnknownModelError",
    "Utterance",
    "Word",
    "load_engine",
    "parse_language",
]

_HOMES = {
    "models.engine": ("Engine", "SpeechEngine", "load_engine"),
    "models.fake": ("FakeEngine",),
    "models.languages": ("LANGUAGES", "parse_language"),
    "models.registry": ("KNOWN",),
    "models.types": (
        "SAMPLE_RATE",
        "Audio",
        "Chunk",
        "DecodingOptions",
        "Hypothesis",
        "ModelCard",
        "Segment",
        "Transcript",
        "Utterance",
        "Word",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What is not listed is an error class.
    value = getattr(import_module(_HOME_OF.get(name, "models.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
