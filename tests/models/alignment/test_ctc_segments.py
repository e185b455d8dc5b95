"""Segment times and scores against paths that are known."""

import numpy as np
import pytest

from models.alignment.columns import FIRST_TOKEN
from models.alignment.ctc_segments import confidence, score_segments

A, B, C, D = range(FIRST_TOKEN, FIRST_TOKEN + 4)


def emissions(path: list[int], probability: float = 0.9) -> np.ndarray:
    """Log-probabilities that favour one column per frame, shape (len(path), 6)."""
    probs = np.full((len(path), 6), (1 - probability) / 5)
    probs[np.arange(len(path)), path] = probability
    return np.log(probs).astype(np.float32)


PATH = [0] * 10 + [A, 0, B, B] + [0] * 20 + [C, 0, 0, D] + [0] * 10


def test_known_path():
    first, second = score_segments(emissions(PATH), [[A, B], [C, D]], 0.08) or ()
    # Tokens at frames 10 to 13 and 34 to 37; up to half a second of the silence around belongs to a segment.
    assert 10 * 0.08 - 0.5 <= first.start <= 10 * 0.08
    assert 13 * 0.08 <= first.end <= 14 * 0.08 + 0.5
    assert 34 * 0.08 - 0.5 <= second.start <= 34 * 0.08
    assert 37 * 0.08 <= second.end <= 38 * 0.08 + 0.5
    assert first.score == pytest.approx(np.log(0.9), abs=1e-3)
    assert confidence(first.score) == pytest.approx(0.9, abs=1e-3)


def test_wrong_text_scores_low():
    right = score_segments(emissions(PATH), [[A, B], [C, D]], 0.08) or ()
    wrong = score_segments(emissions(PATH), [[A, B], [A, A, B, B]], 0.08) or ()
    assert wrong[1].score < right[1].score - 0.5


def test_too_short_a_clip_has_no_score():
    """One frame more than tokens is enough for Viterbi, but not for a blank around every segment."""
    assert score_segments(emissions([A, B, C]), [[A, B], [C]], 0.08) is None


def test_confidence_is_monotone_and_bounded():
    scores = [-1e10, -5.0, -2.0, -0.1, 0.0, 0.1]
    values = [confidence(score) for score in scores]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == 1.0
