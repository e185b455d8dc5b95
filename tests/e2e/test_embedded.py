"""The checkpoint that comes with Aviary: loaded by a real server process, asked through the official client."""

from pathlib import Path

import jiwer
import pytest

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "audio"
SUFFIXES = {".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".webm"}
MAX_WER = 0.5
"""Far above what it has on these clips; a wrong prompt, tokenizer or front end is far above this."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips():
    found = sorted(path for path in CLIPS.glob("*") if path.suffix.lower() in SUFFIXES)
    assert found, f"no clips in {CLIPS}"
    return found


@pytest.fixture(scope="module")
def server(launch):
    with launch("-m", "service", "serve", "--port", "0", timeout=300.0) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def ask(client, clip, response_format, **more):
    """The name of a clip begins with its language."""
    language = clip.name.split("-", 1)[0]
    return client.audio.transcriptions.create(
        model="canary-mini", file=clip, language=language, response_format=response_format, **more
    )


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["canary-mini"]


def test_words_are_timed(client, clips):
    for clip in clips:
        answer = ask(client, clip, "verbose_json", timestamp_granularities=["word", "segment"])
        assert answer.text
        assert " ".join(segment.text for segment in answer.segments) == answer.text
        assert " ".join(word.word for word in answer.words) == answer.text
        times = [time for word in answer.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= answer.duration + 0.001
        assert all(segment.start < segment.end for segment in answer.segments)


def test_the_words_are_right(client, clips):
    told = {clip: clip.with_suffix(".txt") for clip in clips}
    said = {clip: path.read_text(encoding="utf-8") for clip, path in told.items() if path.exists()}
    assert said, f"no clip in {CLIPS} has its text beside it"
    heard = [ask(client, clip, "text") for clip in said]
    assert jiwer.wer(list(map(plain, said.values())), list(map(plain, heard))) < MAX_WER


def plain(text):
    """Words only: neither case nor punctuation."""
    return " ".join("".join(char if char.isalnum() else " " for char in text.lower()).split())


def test_subtitles_have_the_same_words(client, clips):
    clip = clips[0]
    text = ask(client, clip, "text").strip()
    for response_format in ("srt", "vtt"):
        lines = ask(client, clip, response_format).splitlines()
        cues = [lines[n + 1] for n, line in enumerate(lines) if "-->" in line]
        assert plain(" ".join(cues)) == plain(text)
