"""Which of the decoder's tokens belong to which segment: texts of segments and a Hypothesis in, shares of it out."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from models.types import Hypothesis


class Decoder(Protocol):
    """What it takes of the recogniser's tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """The tokens of one segment and their mean log-probability; that of the whole hypothesis, if there are none."""

    tokens: tuple[int, ...]
    avg_logprob: float


def share_tokens(texts: Sequence[str], hypothesis: Hypothesis, tokenizer: Decoder) -> list[Share]:
    """Deals out the tokens: in order, every token once.

    A segment's tokens end with the longest prefix of all tokens that decodes to no more characters than the text up to
    the segment's end has. Spaces are not counted, so it makes no difference how they are written.

    Args:
        texts: The segments' texts; joined they are the hypothesis's.
        hypothesis: What was decoded.
        tokenizer: The recogniser's.
    """
    tokens, logprobs = hypothesis.tokens, hypothesis.logprobs

    def decoded(count: int) -> int:
        return _num_chars(tokenizer.decode(tokens[:count]))

    ends = accumulate(_num_chars(text) for text in texts)
    cuts = [0]
    for end in list(ends)[:-1]:
        # The number of characters grows with the number of tokens, so the prefix is found by bisection.
        cuts.append(max(cuts[-1], bisect_right(range(len(tokens) + 1), end, key=decoded) - 1))
    cuts.append(len(tokens))
    overall = _mean(logprobs, 0.0)
    return [Share(tokens[a:b], _mean(logprobs[a:b], overall)) for a, b in pairwise(cuts)]


def _num_chars(text: str) -> int:
    return len("".join(text.split()))


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
