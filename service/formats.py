"""How a `Transcript` is written: one function per format, and the one table of them.

Text comes from a model, so it may hold anything: no writer lets it break its format.
"""

import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from models.languages import LANGUAGES
from models.types import Segment, Transcript
from service.schemas import TranscriptionJson, TranscriptionVerbose, Usage, VerboseSegment, VerboseWord

SEGMENTS_ONLY: Final = frozenset({"segment"})
"""What verbose_json lists if nobody says."""


def write_json(transcript: Transcript, _: Collection[str] = ()) -> str:
    """The text and what it costs."""
    return TranscriptionJson(text=transcript.text, usage=Usage(seconds=transcript.duration)).model_dump_json()


def write_text(transcript: Transcript, _: Collection[str] = ()) -> str:
    """The bare text and a newline."""
    return transcript.text + "\n"


def write_srt(transcript: Transcript, _: Collection[str] = ()) -> str:
    """SubRip: numbered cues with a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), start=1)
    )


def write_vtt(transcript: Transcript, _: Collection[str] = ()) -> str:
    """WebVTT (W3C): a header, then cues; ``&``, ``<`` and ``>`` in the text are escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_escape(text)}\n\n" for start, end, text in _cues(transcript)
    )


def write_verbose_json(transcript: Transcript, granularities: Collection[str] = ()) -> str:
    """OpenAI's verbose_json with confidences and timings.

    Args:
        transcript: What to write.
        granularities: "segment" and "word" list segments and words; empty means segments.
    """
    listed = granularities or SEGMENTS_ONLY
    words = [word for segment in transcript.segments for word in segment.words]
    verbose = TranscriptionVerbose(
        task="translate" if transcript.task == "translate" else "transcribe",
        language=LANGUAGES[transcript.target_lang].lower(),
        duration=transcript.duration,
        text=transcript.text,
        segments=tuple(_verbose(*entry) for entry in enumerate(transcript.segments)) if "segment" in listed else None,
        words=tuple(
            VerboseWord(word=w.text, start=_ms(w.start), end=_ms(w.end), confidence=w.confidence) for w in words
        )
        if "word" in listed
        else None,
        usage=Usage(seconds=transcript.duration),
        timings={stage: _ms(seconds) for stage, seconds in transcript.timings.items()},
    )
    return verbose.model_dump_json(exclude_none=True)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a Transcript.

    Attributes:
        write: Takes the Transcript and, for verbose_json, the granularities.
        media_type: Content type of the answer.
        extension: End of a file's name; no two formats share one, so that they can lie side by side.
        timed: Whether segments need times.
    """

    write: Callable[[Transcript, Collection[str]], str]
    media_type: str
    extension: str
    timed: bool


FORMATS: Final = MappingProxyType(
    {
        "json": Format(write_json, "application/json", ".json", timed=False),
        "text": Format(write_text, "text/plain; charset=utf-8", ".txt", timed=False),
        "srt": Format(write_srt, "application/x-subrip; charset=utf-8", ".srt", timed=True),
        "vtt": Format(write_vtt, "text/vtt; charset=utf-8", ".vtt", timed=True),
        "verbose_json": Format(write_verbose_json, "application/json", ".verbose.json", timed=True),
    }
)
"""Every format, by the name that requests use."""


def _verbose(number: int, segment: Segment) -> VerboseSegment:
    return VerboseSegment(
        id=number,
        seek=round(segment.start * 100),
        start=_ms(segment.start),
        end=_ms(segment.end),
        text=segment.text,
        tokens=segment.tokens,
        temperature=0.0,
        avg_logprob=segment.avg_logprob,
        compression_ratio=_compression_ratio(segment.text),
        no_speech_prob=segment.no_speech_prob,
        confidence=segment.confidence,
    )


def _ms(seconds: float) -> float:
    """Drops digits that mean nothing; rounding keeps the order of times."""
    return round(seconds, 3)


def _compression_ratio(text: str) -> float:
    """As Whisper has it: high for text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _cues(transcript: Transcript) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and a line that is not empty; players drop cues that end where they begin."""
    for segment in transcript.segments:
        text = _one_line(segment.text)
        start = max(0, round(segment.start * 1000))
        if text:
            yield start, max(start + 1, round(segment.end * 1000)), text


def _one_line(text: str) -> str:
    """Removes what would end a cue or begin another: line breaks of all kinds, control characters, the arrow."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split()).replace("-->", "→")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, mark: str) -> str:
    """Hours have at least two digits and may have more."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{milliseconds:03d}"
