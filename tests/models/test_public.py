"""The public face of the speech library."""

import subprocess
import sys

import pytest

import models


def test_surface() -> None:
    assert models.__all__ == [
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


@pytest.mark.parametrize("name", models.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(models, name).__class__ is not None
    assert name in dir(models)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        models.nonsense  # noqa: B018


def test_importing_it_imports_no_torch() -> None:
    program = (
        "import sys, models, models.engine, models.registry\n"
        "models.Utterance, models.load_engine, models.FakeEngine, models.KNOWN, models.CheckpointError\n"
        "slow = {'torch', 'nemo', 'sentencepiece', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
