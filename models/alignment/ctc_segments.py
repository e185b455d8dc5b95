"""Times and scores of segments by CTC segmentation (Kürzinger et al. 2020, arXiv 2007.09127).

Pure functions on arrays. Columns are those of `models.alignment.columns`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ctc_segmentation import (
    CtcSegmentationParameters,
    ctc_segmentation,
    determine_utterance_segments,
    prepare_token_list,
)
from numpy.typing import NDArray

from models.alignment.columns import BLANK


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A stretch of a clip.

    Attributes:
        start: Seconds from the start of the clip.
        end: Seconds from the start of the clip; may be before ``start`` if the text is not in the audio.
        score: Lowest mean log-probability per frame of any 30 frames in it; 0 is best, below -2 is bad.
    """

    start: float
    end: float
    score: float


def score_segments(
    log_probs: NDArray[np.float32], segments: Sequence[Sequence[int]], frame_s: float
) -> list[ScoredSpan] | None:
    """Finds segments in a clip; what is said before, between and behind them costs nothing.

    Args:
        log_probs: Shape (T, columns).
        segments: Columns of the tokens of each segment, at least one each, none of them `BLANK`.
        frame_s: Seconds per frame.

    Returns:
        One span per segment; None if the clip is too short for them: beside its tokens each segment takes a blank.
    """
    config = CtcSegmentationParameters(
        blank=BLANK, index_duration=frame_s, char_list=[str(column) for column in range(log_probs.shape[1])]
    )
    ground_truth, begins = prepare_token_list(config, [np.array(tokens) for tokens in segments])
    if len(ground_truth) > len(log_probs):
        return None
    try:
        timings, probabilities, _ = ctc_segmentation(config, log_probs, ground_truth)
    except IndexError:  # how the package says that it lost its way back through the table
        return None
    spans = determine_utterance_segments(config, begins, probabilities, timings, segments)
    return [ScoredSpan(float(start), float(end), float(score)) for start, end, score in spans]


def confidence(score: float) -> float:
    """A score as a number from 0 to 1: the mean probability, as a geometric mean, exp(score)."""
    return math.exp(min(score, 0.0))
