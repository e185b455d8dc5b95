"""The Hypotheses of the chunks of one audio in, its whole text and its segments out."""

from collections.abc import Sequence

from models.types import Hypothesis, Segment


def merge(hypotheses: Sequence[Hypothesis]) -> tuple[str, tuple[Segment, ...]]:
    """Joins what was heard in consecutive chunks.

    Args:
        hypotheses: One per chunk, in the order of the audio; those of silent chunks have no text.

    Returns:
        The text, and the segments in order. If every hypothesis with text has segments, the text is the texts of
        the segments joined by spaces.
    """
    spoken = [hypothesis for hypothesis in hypotheses if hypothesis.text]
    segments = tuple(segment for hypothesis in spoken for segment in hypothesis.segments)
    if all(hypothesis.segments for hypothesis in spoken):
        return " ".join(segment.text for segment in segments), segments
    return " ".join(hypothesis.text for hypothesis in spoken), segments
