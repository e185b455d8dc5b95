"""Times of tokens and words: log-probabilities per frame and the tokens of a text in, the best path through them out.

Pure functions on arrays. Columns are those of `models.alignment.columns`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import forced_align

from models.alignment.columns import BLANK, WILDCARD
from models.types import Word


@dataclass(frozen=True, slots=True, eq=False)
class TokenPath:
    """When each of L tokens is on the path.

    Attributes:
        first: Its first frame, shape (L,).
        last: Its last frame, included, shape (L,).
        probability: Mean of its probabilities in these frames, shape (L,); 0 for wildcards.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    probability: NDArray[np.float64]


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest frames that CTC can say tokens in: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def align_tokens(log_probs: NDArray[np.float32], tokens: Sequence[int]) -> TokenPath:
    """Finds the most probable path that says exactly these tokens (Viterbi).

    Args:
        log_probs: Shape (T, columns); T must be at least `frames_needed`.
        tokens: Columns of the tokens, at least one, none of them `BLANK`.
    """
    emissions = torch.from_numpy(np.ascontiguousarray(log_probs))[None]  # (1, T, columns)
    labels, scores = forced_align(emissions, torch.tensor([tokens]), blank=BLANK)
    path = labels[0].numpy()  # (T,)
    said = path != BLANK
    changed = path[1:] != path[:-1]
    # A token's run begins where the label changes to it; equal neighbours have a blank between them.
    first = np.flatnonzero(said & np.concatenate(([True], changed)))
    last = np.flatnonzero(said & np.concatenate((changed, [True])))
    total = np.concatenate(([0.0], np.cumsum(np.exp(scores[0].double().numpy()))))  # total[t]: before frame t
    probability = (total[last + 1] - total[first]) / (last + 1 - first)
    return TokenPath(first, last, np.where(np.asarray(tokens) == WILDCARD, 0.0, np.clip(probability, 0.0, 1.0)))


def frame_edges(num_frames: int, frame_s: float, offset: float, duration: float) -> NDArray[np.float64]:
    """Times between frames: frame t lasts from the t-th to the next, shape (num_frames + 1,).

    The last frame ends with the clip, which need not be a whole number of frames long. Should there be more frames than
    fit, all are made a little shorter, so that each still lasts a while.

    Args:
        num_frames: At least 1.
        frame_s: Seconds per frame.
        offset: Start of the clip, in seconds.
        duration: Length of the clip, in seconds; more than 0.
    """
    edges = np.arange(num_frames + 1, dtype=np.float64) * frame_s
    if edges[num_frames - 1] >= duration:
        edges = np.linspace(0.0, duration, num_frames + 1)
    clamped: NDArray[np.float64] = offset + np.minimum(edges, duration)
    return clamped


def time_words(
    texts: Sequence[str], num_tokens: Sequence[int], path: TokenPath, edges: NDArray[np.float64]
) -> tuple[Word, ...]:
    """Words from their tokens: from the first frame of the first one to the last frame of the last.

    The confidence of a word is the mean probability of its tokens.

    Args:
        texts: The words.
        num_tokens: How many tokens each has, at least one.
        path: Of all tokens.
        edges: Times between frames, from `frame_edges`.
    """
    bounds = pairwise(accumulate(num_tokens, initial=0))
    return tuple(
        Word(
            text,
            start=float(edges[path.first[begin]]),
            end=float(edges[path.last[end - 1] + 1]),
            confidence=float(path.probability[begin:end].mean()),
        )
        for text, (begin, end) in zip(texts, bounds, strict=True)
    )


def spread_words(texts: Sequence[str], offset: float, duration: float) -> tuple[Word, ...]:
    """Words one after another over the whole clip, each for as long as it has characters, with confidence 0.

    For texts that no path can say: more tokens than frames.
    """
    shares = np.cumsum([0, *(len(text) for text in texts)])
    times = offset + duration * (shares / shares[-1])  # the last is the end of the clip exactly
    return tuple(Word(text, float(a), float(b), 0.0) for text, (a, b) in zip(texts, pairwise(times), strict=True))
