"""Merging: the texts and segments of chunks become those of the whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from models.audio.merge import merge
from models.types import Hypothesis, Segment

texts = st.lists(st.text("abc.", min_size=1, max_size=5), max_size=4)


def hypothesis_of(parts: list[str], start: float, *, timed: bool) -> Hypothesis:
    segments = tuple(Segment(part, start + i, start + i + 0.5, 1.0) for i, part in enumerate(parts))
    return Hypothesis(" ".join(parts), (), (), segments if timed else ())


@settings(deadline=None)
@given(st.lists(texts))
def test_text_is_the_joined_segments(chunks):
    text, segments = merge([hypothesis_of(parts, 10.0 * i, timed=True) for i, parts in enumerate(chunks)])
    assert text == " ".join(part for parts in chunks for part in parts)
    assert text == " ".join(segment.text for segment in segments)
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.booleans())))
def test_no_text_is_lost_without_segments(chunks):
    text, segments = merge([hypothesis_of(parts, 10.0 * i, timed=timed) for i, (parts, timed) in enumerate(chunks)])
    assert text == " ".join(part for parts, _ in chunks for part in parts)
    assert len(segments) == sum(len(parts) for parts, timed in chunks if timed)


def test_silence_leaves_no_trace():
    heard, silent = hypothesis_of(["Hello."], 0.0, timed=True), Hypothesis("", (), ())
    assert merge([silent, heard, silent]) == ("Hello.", heard.segments)
    assert merge([]) == ("", ())
