"""Golden files, one per format, and the promise that no text breaks a format.

To renew the golden files after a change that is meant: AVIARY_GOLDEN=write pytest tests/service/test_formats.py
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.types import Segment, Transcript, Word
from service.formats import FORMATS, write_json, write_srt, write_text, write_verbose_json, write_vtt
from service.schemas import TranscriptionJson, TranscriptionVerbose

GOLDEN = Path(__file__).with_name("golden")
WRITE = os.environ.get("AVIARY_GOLDEN") == "write"

WORDS = (Word("Tom", 0.32, 0.56, 0.75), Word("&", 0.56, 0.64, 0.5), Word("<Jerry>.", 0.64, 1.2800000000000002, 1.0))
TRANSCRIPT = Transcript(
    text="Tom & <Jerry>. --> Zwölf\nBoxkämpfer.",
    segments=(
        Segment("Tom & <Jerry>.", 0.32, 1.28, 0.75, WORDS, (17, 4, 9), -0.25, 0.125),
        Segment("--> Zwölf\nBoxkämpfer.", 3599.9996, 360001.5, 0.5, (), (3,), -0.5, 0.0),
    ),
    source_lang="de",
    target_lang="de",
    duration=360002.0,
    model="fake",
    timings={"decode": 0.0104999, "queue": 0.002, "inference": 1.5},
)


@pytest.mark.parametrize("name", FORMATS)
def test_golden(name):
    written = FORMATS[name].write(TRANSCRIPT, ("segment", "word"))
    path = GOLDEN / f"transcript{FORMATS[name].extension}"
    if WRITE:
        path.write_text(written, encoding="utf-8", newline="")
    assert written == path.read_bytes().decode()


def test_every_format_has_a_golden_file_and_no_more():
    assert {path.name for path in GOLDEN.iterdir()} == {f"transcript{f.extension}" for f in FORMATS.values()}


def test_extensions_differ():
    assert len({chosen.extension for chosen in FORMATS.values()}) == len(FORMATS)


EMPTY = Transcript("", (), "en", "en", 2.0, "fake")


def test_silence():
    assert write_text(EMPTY) == "\n"
    assert write_srt(EMPTY) == ""
    assert write_vtt(EMPTY) == "WEBVTT\n\n"
    assert json.loads(write_json(EMPTY)) == {"text": "", "usage": {"type": "duration", "seconds": 2.0}}
    assert json.loads(write_verbose_json(EMPTY))["segments"] == []


def test_json_keeps_to_the_schemas():
    TranscriptionJson.model_validate_json(write_json(TRANSCRIPT), strict=True)
    TranscriptionVerbose.model_validate_json(write_verbose_json(TRANSCRIPT, ("word",)), strict=True)


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ((), {"segments"}),
        (("segment",), {"segments"}),
        (("word",), {"words"}),
        (("word", "segment"), {"words", "segments"}),
    ],
)
def test_granularities_say_what_is_listed(asked, listed):
    assert json.loads(write_verbose_json(TRANSCRIPT, asked)).keys() & {"words", "segments"} == listed


def test_the_language_of_verbose_json_is_that_of_the_text():
    written = json.loads(write_verbose_json(replace(TRANSCRIPT, source_lang="fr", target_lang="en")))
    assert (written["task"], written["language"]) == ("translate", "english")


def test_a_cue_is_never_empty_in_time():
    [_, times, *_] = write_srt(replace(TRANSCRIPT, segments=(Segment("a", 2.0, 2.0, 1.0),))).splitlines()
    assert times == "00:00:02,000 --> 00:00:02,001"


dangerous = st.sampled_from("->\n\r\x0b\x0c\x1c\x85\u2028\u2029 0123:,.&<")
texts = st.lists(st.text(alphabet=st.one_of(st.characters(), dangerous)), max_size=5)
SRT_TIMES = re.compile(r"\d\d+:\d\d:\d\d,\d\d\d --> \d\d+:\d\d:\d\d,\d\d\d")
VTT_TIMES = re.compile(r"\d\d+:\d\d:\d\d\.\d\d\d --> \d\d+:\d\d:\d\d\.\d\d\d")


def parse(body, times, head):
    """Cue texts, with a parser that knows no mercy: blocks of exactly ``head`` + 2 lines between empty lines."""
    assert not body or body.endswith("\n\n")
    cues = []
    for number, block in enumerate(body.split("\n\n")[:-1], start=1):
        lines = block.splitlines()
        assert len(lines) == head + 2
        assert lines[:head] == [str(number)][:head]
        assert times.fullmatch(lines[head])
        assert "-->" not in lines[-1]
        assert lines[-1].strip()
        cues.append(lines[-1])
    return cues


@given(texts, st.floats(min_value=0, max_value=400_000))
def test_no_text_breaks_a_format(contents, start):
    segments = tuple(Segment(text, start + i, start + i + 0.5, 0.5) for i, text in enumerate(contents))
    transcript = replace(TRANSCRIPT, text=" ".join(contents), segments=segments)
    srt = parse(write_srt(transcript), SRT_TIMES, head=1)
    vtt = write_vtt(transcript)
    assert vtt.startswith("WEBVTT\n\n")
    cues = parse(vtt.removeprefix("WEBVTT\n\n"), VTT_TIMES, head=0)
    assert len(cues) == len(srt)
    assert not any("<" in cue or ">" in cue for cue in cues)
