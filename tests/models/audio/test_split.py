"""Splitting: chunks that cover the audio, are short enough, and end where it is quiet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.audio.split import MIN_TAIL, split
from models.errors import OptionError
from models.types import SAMPLE_RATE, Audio


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


@settings(deadline=None)
@given(
    fill=st.floats(0.0, 8.0),
    max_samples=st.one_of(st.integers(3, 50), st.integers(50, 20_000)),
    kind=st.sampled_from(["noise", "silence", "ramp"]),
    seed=st.integers(0, 9),
)
def test_covers_everything_in_short_pieces(fill, max_samples, kind, seed):
    num_samples = int(fill * max_samples)
    samples = {
        "noise": noise(num_samples / SAMPLE_RATE, seed),
        "silence": np.zeros(num_samples, np.float32),
        "ramp": np.linspace(0, 1, num_samples, dtype=np.float32),
    }[kind]
    # A hair more than the samples, so that the product is not rounded to one sample less.
    chunks = split(Audio(samples), (max_samples + 0.01) / SAMPLE_RATE)
    lengths = [len(chunk.audio.samples) for chunk in chunks]
    assert all(0 < length <= max_samples for length in lengths)
    np.testing.assert_array_equal(np.concatenate([samples[:0], *(chunk.audio.samples for chunk in chunks)]), samples)
    begins = np.cumsum([0, *lengths])[:-1]
    np.testing.assert_allclose([chunk.offset for chunk in chunks], begins / SAMPLE_RATE)
    # All but the last reach into the last third; the last is no crumb.
    assert all(length >= max_samples - max_samples // 3 for length in lengths[:-1])
    if len(lengths) > 1:
        assert lengths[-1] >= min(max_samples // 3, MIN_TAIL * SAMPLE_RATE)


def test_short_audio_is_one_chunk():
    audio = Audio(noise(30.0))
    (chunk,) = split(audio, 30.0)
    assert chunk.offset == 0.0
    assert np.shares_memory(chunk.audio.samples, audio.samples)


def test_no_audio_is_no_chunks():
    assert split(Audio(np.zeros(0, np.float32)), 30.0) == []


def test_cuts_in_the_pause():
    samples = noise(50.0)
    samples[round(24.0 * SAMPLE_RATE) : round(24.6 * SAMPLE_RATE)] *= 0.01  # a pause
    samples[round(28.0 * SAMPLE_RATE) : round(28.05 * SAMPLE_RATE)] = 0.0  # the closure of a plosive
    first, second = split(Audio(samples), 30.0)
    assert 24.1 <= second.offset <= 24.5
    assert first.audio.duration == second.offset


def test_cuts_silence_late():
    """Where all is equally quiet, chunks are as long as they may be."""
    assert split(Audio(np.zeros(100 * SAMPLE_RATE, np.float32)), 30.0)[1].offset == 30.0


def test_last_chunk_is_no_crumb():
    audio = Audio(np.zeros(round(30.01 * SAMPLE_RATE), np.float32))
    assert split(audio, 30.0)[1].audio.duration >= MIN_TAIL


@pytest.mark.parametrize("max_chunk", [0.0, -1.0, 2 / SAMPLE_RATE])
def test_refuses_chunks_of_nothing(max_chunk):
    with pytest.raises(OptionError):
        split(Audio(noise(1.0)), max_chunk)
