"""A real server process with the FakeEngine, through the official client."""

import io
import json
import signal
import wave
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from models.types import SAMPLE_RATE


def clip(slots: int) -> tuple[str, bytes]:
    """Half seconds of tone; each is one word."""
    tone = np.sin(np.arange(slots * SAMPLE_RATE // 2) * 0.1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((tone * 16000).astype("<i2").tobytes())
    return "clip.wav", buffer.getvalue()


@pytest.fixture(scope="module")
def server(launch):
    with launch(
        "-m",
        "service",
        "serve",
        "--model",
        "fake",
        "--port",
        "0",
        "--alias",
        "org/whisper",
        api_key="sesame",
        max_upload_mb=1,
    ) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client(api_key="sesame") as client:
        yield client


def test_json(client):
    answer = client.audio.transcriptions.create(model="fake", file=clip(2), language="en")
    assert answer.text == "Alpha bravo"
    assert answer.usage.seconds == 1.0


def test_verbose_json(client):
    answer = client.audio.transcriptions.create(
        model="org/whisper",
        file=clip(3),
        language="de",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        temperature=0,
        prompt="Earlier.",
        chunking_strategy="auto",
    )
    assert (answer.language, answer.duration, answer.text) == ("german", 1.5, "Alpha bravo charlie")
    assert [(word.word, word.start, word.end) for word in answer.words][1] == ("bravo", 0.5, 1.0)
    [segment] = answer.segments
    assert (segment.id, segment.seek, segment.start, segment.end) == (0, 0, 0.0, 1.5)
    assert (segment.text, segment.tokens, segment.temperature) == (answer.text, [0, 1, 2], 0.0)
    assert (segment.avg_logprob, segment.no_speech_prob) == (-0.125, 0.0)
    assert segment.compression_ratio > 0


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        ("text", "Alpha bravo\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\nAlpha bravo\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nAlpha bravo\n\n"),
    ],
)
def test_plain_formats(client, response_format, expected):
    answer = client.audio.transcriptions.create(
        model="fake", file=clip(2), language="en", response_format=response_format
    )
    assert answer == expected


# The client deprecates what it calls; we serve it nevertheless.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translations(client):
    answer = client.audio.translations.create(model="fake", file=clip(2), extra_body={"language": "de"})
    assert answer.text == "Alpha_en bravo_en"
    verbose = client.audio.translations.create(
        model="fake",
        file=clip(2),
        response_format="verbose_json",
        extra_body={"language": "en", "target_language": "fr"},
    )
    assert (verbose.language, verbose.text) == ("french", "Alpha_fr bravo_fr")


def test_models(client):
    assert [model.id for model in client.models.list()] == ["fake", "org/whisper"]
    assert client.models.retrieve("org/whisper").owned_by == "aviary"


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"language": openai.omit}, openai.BadRequestError, "language_required"),
        ({"stream": True}, openai.BadRequestError, "unsupported_value"),
        ({"include": ["logprobs"]}, openai.BadRequestError, "unsupported_value"),
        ({"chunking_strategy": {"type": "server_vad"}}, openai.BadRequestError, "unsupported_value"),
        ({"model": "whisper-1"}, openai.NotFoundError, "model_not_found"),
        ({"file": ("x.wav", b"no sound")}, openai.APIStatusError, "unsupported_media"),
    ],
)
def test_errors_are_the_clients_own(client, fields, error, code):
    with pytest.raises(error) as caught:
        client.audio.transcriptions.create(**({"model": "fake", "file": clip(1), "language": "en"} | fields))
    assert caught.value.code == code


def test_a_wrong_key(server):
    with server.client(api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_large_upload_gets_its_answer(client):
    # Larger than what sockets buffer: the client is still sending when it is refused.
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(model="fake", file=("x.wav", bytes(30_000_000)), language="en")
    assert (caught.value.status_code, caught.value.code) == (413, "upload_too_large")


def test_many_at_once(client):
    def call(slots):
        return client.audio.transcriptions.create(model="fake", file=clip(slots), language="en").text

    lengths = [1 + n % 7 for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert [len(text.split()) for text in pool.map(call, lengths)] == lengths


# A server whose engine does what the test wants.

STEPS_ON_COMMAND = """
import sys
from models.fake import FakeEngine
from service.app import run
from service.logs import set_up_logging
from service.settings import Settings

class Engine(FakeEngine):
    def step(self):
        print("stepping", flush=True)
        sys.stdin.readline()
        return super().step()

set_up_logging("info", "json")
sys.exit(run(Settings(port=0), Engine))
"""

DIES = """
import sys
from models.fake import FakeEngine, Faults
from service.app import run
from service.logs import set_up_logging
from service.settings import Settings

faults = Faults(step_error=RuntimeError("a step"), cancel_error=SystemError("the device is gone"))
set_up_logging("info", "json")
sys.exit(run(Settings(port=0), lambda: FakeEngine(faults=faults)))
"""


def in_background(work):
    """Runs a call in a thread; the result is a function that waits for its value."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: future.result(60)


def post(server, slots=1):
    return httpx.post(
        server.url() + "/v1/audio/transcriptions",
        data={"model": "fake", "language": "en"},
        files={"file": clip(slots)},
        timeout=60,
    )


def test_a_signal_lets_the_accepted_finish(launch):
    with launch("-c", STEPS_ON_COMMAND) as server:
        answer = in_background(lambda: post(server))
        assert server.process.stdout.readline() == "stepping\n"
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: "Shutting down" in server.log.read_text())
        server.process.stdin.write("\n\n\n")
        server.process.stdin.flush()
        assert answer().json()["text"] == "Alpha"
        server.process.wait(60)


def test_a_signal_fails_what_takes_too_long(launch):
    with launch("-c", STEPS_ON_COMMAND, drain_seconds=0.1) as server:
        answer = in_background(lambda: post(server))
        assert server.process.stdout.readline() == "stepping\n"
        server.process.send_signal(signal.SIGTERM)
        response = answer()
        assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")
        assert server.process.wait(60) != 1


def test_death_of_the_engine_ends_the_process(launch):
    with launch("-c", DIES) as server:
        response = post(server)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")
        assert server.process.wait(60) == 1
        events = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert any("the device is gone" in event["message"] for event in events if event["level"] == "critical")


def test_a_model_that_is_not_there_ends_the_process(launch):
    with launch("-m", "service", "serve", "--model", "no-such-model", "--port", "0", ready=False) as server:
        assert server.process.wait(120) == 1
        assert "no-such-model" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_a_caller_that_hangs_up_is_noticed(launch):
    with launch("-c", STEPS_ON_COMMAND) as server:
        with httpx.Client(base_url=server.url()) as client, pytest.raises(httpx.ReadTimeout):
            # The answer does not come, for the engine waits for a command.
            client.post(
                "/v1/audio/transcriptions",
                data={"model": "fake", "language": "en"},
                files={"file": clip(80)},
                timeout=httpx.Timeout(60, read=0.01),
            )
        server.wait_for(lambda: " 499" in server.log.read_text())
        answer = in_background(lambda: post(server))
        server.process.stdin.write("\n" * 10)
        server.process.stdin.flush()
        assert answer().json()["text"] == "Alpha"
