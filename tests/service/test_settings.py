"""Settings: what the environment may say, and the page that documents it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import PREFIX, Settings, render_table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == render_table(), "run: python -m service.settings > docs/settings.md"


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
    assert render_table().count(f"| `{PREFIX}") == len(Settings.model_fields)


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("AVIARY_MODEL", "nvidia/canary-1b-v2")
    monkeypatch.setenv("AVIARY_MODEL_ALIASES", "whisper-1, gpt-4o-transcribe,")
    monkeypatch.setenv("AVIARY_TIMESTAMPS", "false")
    monkeypatch.setenv("AVIARY_DEFAULT_LANGUAGE", "German")
    monkeypatch.setenv("AVIARY_MAX_UPLOAD_MB", "1.5")
    monkeypatch.setenv("AVIARY_API_KEY", "")
    settings = Settings()
    assert settings.model == "nvidia/canary-1b-v2"
    assert settings.model_aliases == ("whisper-1", "gpt-4o-transcribe")
    assert settings.timestamps is False
    assert settings.default_language == "de"
    assert settings.max_upload_bytes == 1_500_000
    assert settings.api_key is None


def test_arguments_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("AVIARY_PORT", "1")
    assert Settings(port=2).port == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("DEFAULT_LANGUAGE", "klingon"),
        ("MAX_WAIT_MS", "-1"),
        ("LOG_FORMAT", "xml"),
        ("MODEL_SHA256", "abc"),
    ],
)
def test_bad_values_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_the_key_is_not_shown():
    assert "hunter2" not in repr(Settings(api_key="hunter2"))
