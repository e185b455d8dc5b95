"""A long `Audio` in, `Chunk`s short enough for the model out, cut where it is quiet."""

import numpy as np
from numpy.typing import NDArray

from models.errors import OptionError
from models.types import SAMPLE_RATE, Audio, Chunk

# Loudness is judged over this many seconds around a cut: longer than the closure of a plosive, shorter than a pause.
QUIET_WINDOW = 0.2

# The last chunk is at least this long, in seconds, where the limit allows: the models pad shorter ones anyway.
MIN_TAIL = 1.0


def split(audio: Audio, max_chunk: float) -> list[Chunk]:
    """Cuts audio into consecutive chunks that cover all of it.

    Every chunk but the last ends at the quietest point of the last third of the longest allowed chunk, so chunks are
    between 2/3 ``max_chunk`` and ``max_chunk``, except the last one. Samples are shared with ``audio``, not copied.

    Args:
        audio: What to cut; nothing comes out if it is empty.
        max_chunk: Longest chunk in seconds.

    Raises:
        OptionError: ``max_chunk`` holds less than three samples.
    """
    longest = int(max_chunk * SAMPLE_RATE)
    if longest < 3:
        raise OptionError(f"max_chunk must be longer, not {max_chunk} s")
    tail = min(int(MIN_TAIL * SAMPLE_RATE), longest // 3)
    samples, chunks, begin = audio.samples, [], 0
    while len(samples) - begin > longest:
        first = begin + longest - longest // 3
        last = min(begin + longest, len(samples) - tail)
        cut = _quietest(samples, first, last)
        chunks.append(Chunk(Audio(samples[begin:cut]), begin / SAMPLE_RATE))
        begin = cut
    if begin < len(samples):
        chunks.append(Chunk(Audio(samples[begin:]), begin / SAMPLE_RATE))
    return chunks


def _quietest(samples: NDArray[np.float32], first: int, last: int) -> int:
    """The index from ``first`` to ``last``, inclusive, around which there is least energy; the latest of equals."""
    half = int(QUIET_WINDOW * SAMPLE_RATE) // 2
    low, high = max(first - half, 0), min(last + half, len(samples))
    # total[i] is the energy before sample low + i; float64, because differences of long sums are taken.
    total = np.concatenate(([0.0], np.cumsum(np.square(samples[low:high], dtype=np.float64))))
    points = np.arange(first, last + 1)
    ends, begins = np.minimum(points + half, high) - low, np.maximum(points - half, low) - low
    mean = (total[ends] - total[begins]) / (ends - begins)
    return last - int(np.argmin(mean[::-1]))
