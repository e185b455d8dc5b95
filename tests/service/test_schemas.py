"""Forms: what clients send, in all the ways in which they send it."""

import pytest

from service.errors import MissingFieldError, RequestError, UnsupportedError
from service.schemas import TranscriptionForm, TranslationForm, parse_form


def transcription(**fields):
    return parse_form(TranscriptionForm, {"model": ["fake"]} | {name: list(values) for name, values in fields.items()})


def test_defaults():
    form = parse_form(TranscriptionForm, {"model": ["fake"]})
    assert (form.response_format, form.language, form.prompt, form.is_timed) == ("json", None, "", False)


def test_empty_fields_are_fields_left_open():
    form = transcription(language=[""], temperature=[""], response_format=[""], prompt=[""], stream=[""])
    assert form == parse_form(TranscriptionForm, {"model": ["fake"]})


def test_unknown_fields_are_ignored():
    assert transcription(user=["me"], **{"known_speaker_names[]": ["a", "b"]}) == transcription()


@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
def test_lists_have_two_names(name):
    form = transcription(response_format=["verbose_json"], **{name: ["word", "segment"]})
    assert form.timestamp_granularities == ("word", "segment")


@pytest.mark.parametrize("name", ["to_language", "target_language"])
def test_the_target_has_two_names(name):
    assert parse_form(TranslationForm, {"model": ["fake"], name: ["de"]}).target_language == "de"


@pytest.mark.parametrize("fields", [{}, {"model": [""]}, {"model": []}])
def test_a_model_is_required(fields):
    with pytest.raises(MissingFieldError) as caught:
        parse_form(TranscriptionForm, fields)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"response_format": ["xml"]}, "response_format", RequestError),
        ({"response_format": ["diarized_json"]}, "response_format", UnsupportedError),
        ({"response_format": ["json", "text"]}, "response_format", RequestError),
        ({"temperature": ["0.2"]}, "temperature", UnsupportedError),
        ({"temperature": ["nan"]}, "temperature", UnsupportedError),
        ({"temperature": ["warm"]}, "temperature", RequestError),
        ({"prompt": ["x" * 10_001]}, "prompt", RequestError),
        ({"stream": ["true"]}, "stream", UnsupportedError),
        ({"include[]": ["logprobs"]}, "include", UnsupportedError),
        ({"chunking_strategy": ["none"]}, "chunking_strategy", UnsupportedError),
        ({"chunking_strategy[type]": ["server_vad"]}, "chunking_strategy", UnsupportedError),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", RequestError),
        (
            {"timestamp_granularities": ["letter"], "response_format": ["verbose_json"]},
            "timestamp_granularities",
            RequestError,
        ),
    ],
)
def test_refused(fields, param, kind):
    with pytest.raises(RequestError) as caught:
        transcription(**fields)
    assert (caught.value.param, type(caught.value)) == (param, kind)


@pytest.mark.parametrize(
    "fields",
    [{"stream": ["false"]}, {"chunking_strategy": ["auto"]}, {"temperature": ["0.0"]}, {"response_format": ["vtt"]}],
)
def test_accepted(fields):
    assert transcription(**fields).model == "fake"


def test_translations_have_no_words():
    fields = {"model": ["fake"], "response_format": ["verbose_json"], "timestamp_granularities[]": ["segment", "word"]}
    with pytest.raises(UnsupportedError, match="words of a translation"):
        parse_form(TranslationForm, fields)
