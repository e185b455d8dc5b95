"""Spelling texts in columns, and gathering these columns."""

import numpy as np
import torch

from models.alignment.columns import FIRST_TOKEN, FLOOR, WILDCARD, gather, spell

VOCAB = {"<unk>": 0, "▁": 1, "a": 2, "b": 3}


class Letters:
    """One token per letter; ids beyond the model's vocabulary for capitals."""

    def encode(self, text: str, lang: str) -> list[int]:
        return [1000 if char.isupper() else VOCAB.get(char, 0) for char in text]

    def decode(self, ids):
        return "".join(self.pieces(ids))

    def pieces(self, ids):
        return [list(VOCAB)[index] for index in ids]


def test_spelling():
    spelling = spell(["ab", "ba", "?", "aX", ""], "en", Letters(), vocab_size=4)
    a, b = FIRST_TOKEN, FIRST_TOKEN + 1
    assert spelling.ids == (2, 3)
    assert spelling.words == ((a, b), (b, a), (WILDCARD,), (a, WILDCARD), (WILDCARD,))
    assert spelling.tokens == (a, b, b, a, WILDCARD, a, WILDCARD, WILDCARD)


def test_gathers_the_columns_of_each_row():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 7, 5).log_softmax(-1)  # vocabulary of 4, the blank last
    spellings = [spell(["b"], "en", Letters(), 4), spell(["ab"], "en", Letters(), 4)]
    one, two = gather(log_probs, torch.tensor([5, 7]), 4, spellings)
    assert one.shape == (5, 3)
    assert two.shape == (7, 4)
    np.testing.assert_allclose(one[:, 0], log_probs[0, :5, 4])
    np.testing.assert_allclose(np.exp(one[:, WILDCARD]), 1 - np.exp(one[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(one[:, FIRST_TOKEN], log_probs[0, :5, 3])
    np.testing.assert_allclose(two[:, FIRST_TOKEN:], log_probs[1, :, [2, 3]])


def test_broken_emissions_stay_finite():
    log_probs = torch.full((1, 3, 5), float("nan"))
    log_probs[0, 1] = -torch.inf
    log_probs[0, 1, 4] = 0.0  # a certain blank leaves nothing for the wildcard
    (columns,) = gather(log_probs, torch.tensor([3]), 4, [spell(["a"], "en", Letters(), 4)])
    assert np.isfinite(columns).all()
    assert columns.min() >= FLOOR
    assert columns.max() <= 0.0
