"""Word times against paths that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alignment.columns import BLANK, FIRST_TOKEN, WILDCARD
from models.alignment.viterbi import align_tokens, frame_edges, frames_needed, spread_words, time_words


def emissions(path: list[int], num_columns: int, probability: float = 0.9) -> np.ndarray:
    """Log-probabilities that favour one column per frame, shape (len(path), num_columns)."""
    probs = np.full((len(path), num_columns), (1 - probability) / (num_columns - 1))
    probs[np.arange(len(path)), path] = probability
    return np.log(probs).astype(np.float32)


def test_known_path():
    a, b, c = FIRST_TOKEN, FIRST_TOKEN + 1, FIRST_TOKEN + 2
    path = [0, 0, a, a, 0, b, 0, 0, 0, c, c, c, 0, c, 0]
    found = align_tokens(emissions(path, 5), [a, b, c, c])
    assert found.first.tolist() == [2, 5, 9, 13]
    assert found.last.tolist() == [3, 5, 11, 13]
    np.testing.assert_allclose(found.probability, 0.9, atol=1e-6)
    edges = frame_edges(len(path), 0.08, offset=10.0, duration=1.2)
    first, second = time_words(["Hello", "you."], [2, 2], found, edges)
    assert (first.text, first.start, first.end) == ("Hello", pytest.approx(10.16), pytest.approx(10.48))
    assert (second.text, second.start, second.end) == ("you.", pytest.approx(10.72), pytest.approx(11.12))
    assert first.confidence == pytest.approx(0.9, abs=1e-6)


def test_wildcards_take_time_but_earn_no_trust():
    a = FIRST_TOKEN
    found = align_tokens(emissions([0, a, WILDCARD, 0], 3), [a, WILDCARD])
    assert found.first.tolist() == [1, 2]
    assert found.probability[0] > 0.5
    assert found.probability[1] == 0.0


def test_words_that_were_not_said_have_little_confidence():
    a, b = FIRST_TOKEN, FIRST_TOKEN + 1
    found = align_tokens(emissions([0, a, a, 0, 0, 0], 4), [a, b])
    assert found.probability[0] > 0.8
    assert found.probability[1] < 0.1


@settings(deadline=None)
@given(st.data())
def test_any_text_that_fits_gets_a_path(data):
    tokens = data.draw(st.lists(st.integers(WILDCARD, 5), min_size=1, max_size=12))
    spare = data.draw(st.integers(0, 10))
    num_frames = frames_needed(tokens) + spare
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    log_probs = np.log(rng.dirichlet(np.ones(6), num_frames)).astype(np.float32)
    found = align_tokens(log_probs, tokens)
    assert len(found.first) == len(found.last) == len(tokens)
    assert (found.first <= found.last).all()
    assert (found.last[:-1] < found.first[1:]).all()
    assert found.first[0] >= 0
    assert found.last[-1] < num_frames
    assert ((found.probability >= 0) & (found.probability <= 1)).all()


def test_frames_needed():
    assert frames_needed([2, 3, 4]) == 3
    assert frames_needed([2, 2, 2]) == 5
    assert frames_needed([2, BLANK + 5, 2]) == 3


@settings(deadline=None)
@given(
    num_frames=st.integers(1, 600),
    frame_s=st.sampled_from([0.04, 0.08]),
    offset=st.floats(0.0, 1e5),
    surplus=st.floats(-3.0, 3.0),
)
def test_frames_last_and_stay_inside(num_frames, frame_s, offset, surplus):
    duration = max(0.02, (num_frames + surplus) * frame_s)
    edges = frame_edges(num_frames, frame_s, offset, duration)
    assert edges[0] == offset
    assert edges[-1] <= offset + duration
    assert (np.diff(edges) > 0).all()


def test_frames_of_a_whole_clip_are_on_the_grid():
    np.testing.assert_allclose(frame_edges(5, 0.08, 0.0, 0.36), [0.0, 0.08, 0.16, 0.24, 0.32, 0.36])


def test_spread():
    words = spread_words(["a", "bbb"], offset=2.0, duration=4.0)
    assert [(word.start, word.end, word.confidence) for word in words] == [(2.0, 3.0, 0.0), (3.0, 6.0, 0.0)]


@settings(deadline=None)
@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=50),
    offset=st.floats(0.0, 1e5),
    duration=st.floats(0.02, 40.0),
)
def test_spread_stays_inside(texts, offset, duration):
    words = spread_words(texts, offset, duration)
    times = [words[0].start, *(word.end for word in words)]
    assert times[0] == offset
    assert times[-1] == offset + duration
    assert times == sorted(set(times))
