"""The whole service over the FakeEngine, through HTTP."""

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest

from models.errors import CheckpointError
from models.fake import FakeEngine, Faults
from service.app import create_app
from service.loading import engine_factory
from service.logs import REQUEST_ID_HEADER
from service.schemas import ErrorReply
from service.settings import Settings

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
PATTERN = "xx.xxxxx"
TEXT = "Alpha bravo delta echo foxtrot. Golf hotel"


@pytest.fixture
def post(client, make_wav):
    def send(path=TRANSCRIPTIONS, pattern=PATTERN, content=None, filename="clip.wav", **fields):
        data = {"model": "fake", "language": "en"} | fields
        file = make_wav(pattern) if content is None else content
        return client.post(path, data=data, files={"file": (filename, file)})

    return send


def fails(response, status, code, param=None):
    error = ErrorReply.model_validate(response.json(), strict=True).error
    assert (response.status_code, error.code, error.param) == (status, code, param)
    assert error.message
    return error.message


def test_json(post):
    response = post()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"text": TEXT, "usage": {"type": "duration", "seconds": 4.0}}


def test_text(post):
    response = post(response_format="text")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == TEXT + "\n"


def test_srt(post):
    assert post(response_format="srt").text == (
        "1\n00:00:00,000 --> 00:00:03,000\nAlpha bravo delta echo foxtrot.\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\nGolf hotel\n\n"
    )


def test_vtt(post):
    response = post(response_format="vtt")
    assert response.headers["content-type"] == "text/vtt; charset=utf-8"
    assert response.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:03.000\nAlpha")


def test_verbose_json(post):
    answer = post(response_format="verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}).json()
    assert answer["task"] == "transcribe"
    assert answer["language"] == "english"
    assert answer["duration"] == 4.0
    assert " ".join(segment["text"] for segment in answer["segments"]) == answer["text"] == TEXT
    assert answer["words"][2] == {"word": "delta", "start": 1.5, "end": 2.0, "confidence": 0.875}
    assert answer["timings"].keys() == {"decode", "queue", "inference"}
    assert answer["usage"] == {"type": "duration", "seconds": 4.0}


def test_segments_are_the_default_of_verbose_json(post):
    answer = post(response_format="verbose_json").json()
    assert "words" not in answer
    assert len(answer["segments"]) == 2


@pytest.mark.parametrize("language", ["de", "de-DE", "German"])
def test_language_spellings(post, language):
    assert post(language=language, response_format="verbose_json").json()["language"] == "german"


def test_a_long_file_is_one_text(post):
    answer = post(pattern="x" * 200, response_format="verbose_json").json()
    words = answer["text"].split()
    assert len(words) == 200
    assert answer["segments"][-1]["end"] == 100.0


def test_silence_is_an_empty_text(post):
    assert post(pattern="....").json()["text"] == ""


def test_times_are_only_made_when_the_format_needs_them(serving, make_wav):
    engine = FakeEngine()
    with serving(engine) as client:
        for name in ("json", "text", "srt", "vtt", "verbose_json"):
            data = {"model": "fake", "language": "en", "response_format": name, "prompt": "Earlier"}
            assert client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("x")}).status_code == 200
    options = [utterance.options for batch in engine.batches for utterance in batch]
    assert [o.timestamps for o in options] == [False, False, True, True, True]
    assert {o.context for o in options} == {"Earlier"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "de"}, "Alpha_en"),
        ({"language": "en", "target_language": "fr"}, "Alpha_fr"),
        ({"language": "en", "to_language": "Spanish"}, "Alpha_es"),
        ({"language": "en"}, "Alpha"),
    ],
)
def test_translations(post, fields, expected):
    assert post(TRANSLATIONS, pattern="x", **fields).json()["text"] == expected


def test_verbose_translation(post):
    answer = post(TRANSLATIONS, pattern="xx", language="de", response_format="verbose_json").json()
    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert [segment["text"] for segment in answer["segments"]] == ["Alpha_en bravo_en"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"language": ""}, 400, "language_required", "language"),
        ({"language": "ja"}, 400, "unsupported_language", "language"),
        ({"model": "whisper-1"}, 404, "model_not_found", "model"),
        ({"model": ""}, 422, "missing_required_parameter", "model"),
        ({"response_format": "diarized_json"}, 400, "unsupported_value", "response_format"),
        ({"response_format": "docx"}, 400, "invalid_value", "response_format"),
        ({"temperature": "0.5"}, 400, "unsupported_value", "temperature"),
        ({"timestamp_granularities[]": "word"}, 400, "invalid_value", "timestamp_granularities"),
        ({"stream": "true"}, 400, "unsupported_value", "stream"),
        ({"include[]": "logprobs"}, 400, "unsupported_value", "include"),
        ({"chunking_strategy[type]": "server_vad"}, 400, "unsupported_value", "chunking_strategy"),
    ],
)
def test_bad_fields(post, fields, status, code, param):
    fails(post(**fields), status, code, param)


def test_bad_translations(post):
    fails(post(TRANSLATIONS, language="de", to_language="fr"), 400, "unsupported_language", "language")
    fails(post(TRANSLATIONS, language="de", to_language="ja"), 400, "unsupported_language", "target_language")
    fails(
        post(TRANSLATIONS, response_format="verbose_json", **{"timestamp_granularities[]": "word"}),
        400,
        "unsupported_value",
        "timestamp_granularities",
    )


def test_a_missing_file(client):
    response = client.post(TRANSCRIPTIONS, files={"model": (None, "fake"), "language": (None, "en")})
    fails(response, 422, "missing_required_parameter", "file")


def test_bad_files(post, make_wav):
    fails(post(content=b"these are words, not sounds" * 99), 415, "unsupported_media", "file")
    fails(post(content=b""), 415, "unsupported_media", "file")
    fails(post(content=make_wav("x")[: 44 + 100]), 400, "audio_too_short", "file")


def test_a_body_that_is_no_form(client):
    fails(client.post(TRANSCRIPTIONS, json={"model": "fake"}), 400, "invalid_content_type")
    fails(
        client.post(
            TRANSCRIPTIONS, content=b"--b\r\nnonsense", headers={"content-type": "multipart/form-data; boundary=b"}
        ),
        400,
        "invalid_value",
    )


def test_limits(serving, make_wav):
    with serving(max_upload_mb=0.05, max_audio_seconds=1.0) as client:
        data = {"model": "fake", "language": "en"}
        fails(client.post(TRANSCRIPTIONS, data=data, files={"file": b"x" * 50_001}), 413, "upload_too_large", "file")
        fails(client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("xxx")}), 413, "audio_too_long", "file")


def test_uploads_do_not_stay(serving, make_wav, tmp_path):
    engine = FakeEngine(faults=Faults(poisoned=lambda u: u.options.context == "bad"))
    with serving(engine, upload_folder=tmp_path, max_upload_mb=0.1) as client:
        for content, fields, status in [
            (make_wav("x"), {}, 200),
            (make_wav("x"), {"prompt": "bad"}, 500),
            (make_wav("x"), {"model": "other"}, 404),
            (b"junk", {}, 415),
            (b"x" * 200_000, {}, 413),
        ]:
            data = {"model": "fake", "language": "en"} | fields
            assert client.post(TRANSCRIPTIONS, data=data, files={"file": content}).status_code == status
            assert not list(tmp_path.iterdir())


def test_models(serving):
    with serving(model_aliases="whisper-1,org/name") as client:
        listed = client.get("/v1/models").json()
        assert listed["object"] == "list"
        assert [entry["id"] for entry in listed["data"]] == ["fake", "whisper-1", "org/name"]
        for entry in listed["data"]:
            assert client.get(f"/v1/models/{entry['id']}").json() == entry
            assert (entry["object"], entry["owned_by"]) == ("model", "aviary")
        fails(client.get("/v1/models/no/such"), 404, "model_not_found", "model")


def test_an_alias_is_opt_in(serving, make_wav):
    with serving(model_aliases="whisper-1") as client:
        data = {"model": "whisper-1", "language": "en"}
        assert client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("x")}).json()["text"] == "Alpha"


def test_default_language(serving, make_wav):
    with serving(default_language="fi") as client:
        data = {"model": "fake", "response_format": "verbose_json"}
        answer = client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("x")}).json()
        assert answer["language"] == "finnish"


def test_what_is_not_there(client):
    fails(client.get("/v1/nothing"), 404, "not_found")
    response = client.get(TRANSCRIPTIONS)
    fails(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_an_error_that_nobody_foresaw(serving, make_wav, monkeypatch):
    def explode(_):
        raise KeyError("/secret/path")

    monkeypatch.setattr("service.transcriber.merge", explode)
    with serving() as client:
        response = client.post(TRANSCRIPTIONS, data={"model": "fake", "language": "en"}, files={"file": make_wav("x")})
        assert "secret" not in fails(response, 500, "internal_error")
        assert response.headers[REQUEST_ID_HEADER]


def test_an_engine_error_is_told(serving, make_wav):
    with serving(FakeEngine(faults=Faults(poisoned=lambda _: True))) as client:
        response = client.post(TRANSCRIPTIONS, data={"model": "fake", "language": "en"}, files={"file": make_wav("x")})
        assert "told to fail" in fails(response, 500, "internal_error")


def test_request_ids(client):
    assert client.get("/health/live", headers={REQUEST_ID_HEADER: "my-id.1"}).headers[REQUEST_ID_HEADER] == "my-id.1"
    generated = client.get("/health/live", headers={REQUEST_ID_HEADER: "with spaces"}).headers[REQUEST_ID_HEADER]
    assert len(generated) == 32
    assert client.get("/nothing").headers[REQUEST_ID_HEADER]


def test_api_key(serving, make_wav):
    with serving(api_key="sésame") as client:
        fails(client.get("/v1/models"), 401, "missing_api_key")
        wrong = {"Authorization": "Bearer open"}
        fails(client.get("/v1/models", headers=wrong), 401, "invalid_api_key")
        response = client.post(TRANSCRIPTIONS, headers=wrong, files={"file": make_wav("x")})
        fails(response, 401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/health/ready").status_code == 200
        right = {"Authorization": "Bearer sésame".encode()}
        assert client.get("/v1/models", headers=right).status_code == 200


def test_not_ready_until_warm(serving, make_wav):
    gate = threading.Event()
    with serving(FakeEngine(faults=Faults(warm_up_gate=gate)), wait=False, model="fake") as client:
        assert client.get("/health/live").status_code == 200
        response = client.get("/health/ready")
        assert response.status_code == 503
        assert response.json()["model"] == "fake"
        assert response.json()["status"] in {"loading", "warming up"}
        response = client.post(TRANSCRIPTIONS, data={"model": "fake"}, files={"file": make_wav("x")})
        fails(response, 503, "model_loading")
        assert int(response.headers["retry-after"]) > 0
        gate.set()
        client.app.state.transcriber.scheduler.wait_ready(60)
        assert client.get("/health/ready").json() == {"status": "ready", "model": "fake"}


def test_a_model_that_cannot_be_loaded(serving, until):
    class Broken(FakeEngine):
        def warm_up(self):
            raise CheckpointError("weights.nemo: truncated")

    with serving(Broken(), wait=False) as client:
        until(lambda: client.get("/health/ready").json()["status"] == "dead")
        assert client.get("/health/ready").status_code == 503


def test_death_is_seen(serving, make_wav, until):
    faults = Faults(step_error=RuntimeError("a step"), cancel_error=RuntimeError("no way back"))
    with serving(FakeEngine(faults=faults)) as client:
        data = {"model": "fake", "language": "en"}
        fails(client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("x")}), 503, "engine_dead")
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/ready").json()["status"] == "dead"
        fails(client.post(TRANSCRIPTIONS, data=data, files={"file": make_wav("x")}), 503, "engine_dead")


def test_the_fake_model_is_served_by_name():
    assert isinstance(engine_factory(Settings(model="fake"))(), FakeEngine)


# With several callers at once: the app without a client of its own.


class Running:
    """An app whose lifespan runs in the event loop of the test."""

    def __init__(self, engine, **settings):
        self.app = create_app(Settings(drain_seconds=0.0, max_wait_ms=0.0, **settings), lambda: engine)
        self.scheduler = self.app.state.transcriber.scheduler
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test", timeout=60)

    async def __aenter__(self):
        self._lifespan = self.app.router.lifespan_context(self.app)
        await self._lifespan.__aenter__()
        await asyncio.to_thread(self.scheduler.wait_ready, 60)
        return self

    async def __aexit__(self, *exc):
        await self.client.aclose()
        await self._lifespan.__aexit__(*exc)

    async def post(self, file, **fields):
        data = {"model": "fake", "language": "en"} | fields
        return await self.client.post(TRANSCRIPTIONS, data=data, files={"file": file})


def test_concurrent_callers_share_a_batch(make_wav, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))

    async def scene():
        async with Running(engine) as service:
            calls = [asyncio.create_task(service.post(make_wav("x")))]
            await asyncio.to_thread(until, lambda: engine.active == 1)
            calls += [asyncio.create_task(service.post(make_wav("x" * n))) for n in (2, 3, 4, 5)]
            await asyncio.to_thread(until, lambda: service.scheduler.open_requests == 5)
            gate.set()
            return [(await call).json()["text"] for call in calls]

    texts = asyncio.run(scene())
    assert texts == [
        "Alpha",
        "Alpha bravo",
        "Alpha bravo charlie",
        "Alpha bravo charlie delta",
        "Alpha bravo charlie delta echo",
    ]
    assert [len(batch) for batch in engine.batches] == [1, 4]


def test_overload_is_503_with_retry_after(make_wav, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))

    async def scene():
        async with Running(engine, max_queue_seconds=2.0) as service:
            calls = [asyncio.create_task(service.post(make_wav("x")))]
            await asyncio.to_thread(until, lambda: engine.active == 1)
            calls.append(asyncio.create_task(service.post(make_wav("xxx"))))
            await asyncio.to_thread(until, lambda: service.scheduler.open_requests == 2)
            refused = await service.post(make_wav("xx"))
            gate.set()
            return refused, [(await call).status_code for call in calls]

    refused, accepted = asyncio.run(scene())
    fails(refused, 503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert accepted == [200, 200]


@pytest.mark.parametrize("when", ["waiting", "in the engine", "sending"])
def test_a_client_that_hangs_up_frees_everything(make_wav, until, tmp_path, when):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    request = httpx.Request(
        "POST",
        "http://test",
        data={"model": "fake", "language": "en", "prompt": "gone"},
        files={"file": make_wav("xxx")},
    )
    body = request.read()

    async def scene():
        async with Running(engine, upload_folder=tmp_path) as service:
            hung_up = asyncio.Event()
            messages = [{"type": "http.request", "body": body, "more_body": False}]
            if when == "sending":
                messages = [{"type": "http.request", "body": body[:500], "more_body": True}]
                hung_up.set()
            sent = []

            async def receive():
                if messages:
                    return messages.pop(0)
                await hung_up.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            blocker = None
            if when == "waiting":
                blocker = asyncio.create_task(service.post(make_wav("x")))
                await asyncio.to_thread(until, lambda: engine.active == 1)
            scope = {
                "type": "http",
                "method": "POST",
                "path": TRANSCRIPTIONS,
                "query_string": b"",
                "headers": [(k.lower().encode(), v.encode()) for k, v in request.headers.items()],
            }
            call = asyncio.create_task(service.app(scope, receive, send))
            if when == "waiting":
                await asyncio.to_thread(until, lambda: service.scheduler.open_requests == 2)
            elif when == "in the engine":
                await asyncio.to_thread(until, lambda: engine.active == 1)
            hung_up.set()
            await call
            assert service.scheduler.open_requests == (1 if blocker else 0)
            assert len(list(tmp_path.iterdir())) == (1 if blocker else 0)
            gate.set()
            if blocker:
                assert (await blocker).status_code == 200
            assert (await service.post(make_wav("xx"))).json()["text"] == "Alpha bravo"
            return sent[0]["status"]

    assert asyncio.run(scene()) == 499
    contexts = [utterance.options.context for batch in engine.batches for utterance in batch]
    assert contexts.count("gone") == len(engine.cancelled) == (1 if when == "in the engine" else 0)


def test_the_description_is_the_committed_one():
    snapshot = Path(__file__).with_name("openapi.json")
    described = create_app(Settings(), FakeEngine).openapi()
    if not snapshot.exists():
        snapshot.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        pytest.fail("wrote a new openapi.json: look at it and commit it")
    assert json.loads(snapshot.read_text(encoding="utf-8")) == described, "delete openapi.json to renew it"
