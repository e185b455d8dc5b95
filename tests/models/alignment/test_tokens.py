"""Dealing out the decoder's tokens to segments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alignment.tokens import share_tokens
from models.types import Hypothesis


class Pieces:
    """Ids index a list of pieces; "▁" stands for a space."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def decode(self, ids) -> str:
        return "".join(self.pieces[index] for index in ids).replace("▁", " ").strip()


def test_tokens_go_to_the_segment_they_spell():
    pieces = ["▁Hel", "lo", ".", "▁How", "▁are", "▁you", "?"]
    hypothesis = Hypothesis("Hello. How are you?", tuple(range(7)), (-1.0, -2.0, -3.0, 0.0, 0.0, 0.0, -4.0))
    first, second = share_tokens(["Hello.", "How are you?"], hypothesis, Pieces(pieces))
    assert first.tokens == (0, 1, 2)
    assert first.avg_logprob == pytest.approx(-2.0)
    assert second.tokens == (3, 4, 5, 6)
    assert second.avg_logprob == pytest.approx(-1.0)


def test_segment_without_tokens_has_the_mean_of_all():
    hypothesis = Hypothesis("a b", (0,), (-3.0,))
    first, second = share_tokens(["a", "b"], hypothesis, Pieces(["a b"]))
    assert (first.tokens, second.tokens) == ((), (0,))
    assert first.avg_logprob == -3.0
    assert share_tokens(["a"], Hypothesis("a", (), ()), Pieces([]))[0].avg_logprob == 0.0


@settings(deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["▁a", "b", "▁", "c.", "", "▁dd"]), max_size=20),
    texts=st.lists(st.text("abcd. ", min_size=1, max_size=6), min_size=1, max_size=6),
)
def test_every_token_once_in_order(pieces, texts):
    """Even if the texts are not what the tokens say."""
    hypothesis = Hypothesis(" ".join(texts), tuple(range(len(pieces))), tuple(-float(i) for i in range(len(pieces))))
    shares = share_tokens(texts, hypothesis, Pieces(pieces))
    assert len(shares) == len(texts)
    assert tuple(token for share in shares for token in share.tokens) == hypothesis.tokens
