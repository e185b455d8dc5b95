"""Only the log-probabilities that a text needs: one column per distinct token instead of the whole vocabulary.

Aligning costs frames x tokens then, not frames x 16,384, and one small copy leaves the device.

The columns of an utterance are: the blank, the wildcard, then its distinct tokens. The wildcard stands for what the
tokenizer cannot spell; its probability is that of any token at all, 1 - p(blank).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLANK = 0
WILDCARD = 1
FIRST_TOKEN = 2

# Log-probabilities are kept above this: the sum over any clip stays finite, and nothing that matters is so unlikely.
FLOOR = -100.0

_UNKNOWN_PIECE = "<unk>"


class Speller(Protocol):
    """What the aligner needs of the tokenizer of its model."""

    def encode(self, text: str, lang: str) -> list[int]:
        """Ids of a text in a language (ISO 639-1)."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, stripped; unknown ones are dropped."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id; that of unknown text is "<unk>"."""
        ...


@dataclass(frozen=True, slots=True)
class Spelling:
    """A text in columns.

    Attributes:
        ids: Distinct token ids of the text; column ``FIRST_TOKEN + i`` is that of ``ids[i]``.
        words: The columns of each word, at least one each.
    """

    ids: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The columns of the whole text, in order."""
        return tuple(column for word in self.words for column in word)


def spell(words: Sequence[str], lang: str, tokenizer: Speller, vocab_size: int) -> Spelling:
    """Tokenizes every word by itself: BPE pieces do not cross spaces, so the text as a whole has the same tokens.

    Unknown tokens and ids outside the model's vocabulary become wildcards, as do words of no tokens at all.
    """
    columns: dict[int, int] = {}

    def column(token: int, piece: str) -> int:
        if piece == _UNKNOWN_PIECE:
            return WILDCARD
        return columns.setdefault(token, FIRST_TOKEN + len(columns))

    spelled = []
    for word in words:
        ids = [token if 0 <= token < vocab_size else -1 for token in tokenizer.encode(word, lang)]
        known = [token for token in ids if token >= 0]
        pieces = iter(tokenizer.pieces(known))
        spelled.append(tuple(column(token, next(pieces)) if token >= 0 else WILDCARD for token in ids) or (WILDCARD,))
    return Spelling(tuple(columns), tuple(spelled))


def gather(
    log_probs: Tensor, num_frames: Tensor, blank: int, spellings: Sequence[Spelling]
) -> list[NDArray[np.float32]]:
    """Picks the columns of each utterance and brings them to the CPU, in one copy.

    Args:
        log_probs: Shape (B, T, vocabulary with blank), on any device.
        num_frames: Valid frames of each row, shape (B,).
        blank: Index of the blank class.
        spellings: One per row.

    Returns:
        For each row the log-probabilities of its columns, shape (valid frames, columns); all are finite.
    """
    widest = max(len(spelling.ids) for spelling in spellings)
    index = torch.full((len(spellings), 1 + widest), blank)
    for row, spelling in enumerate(spellings):
        index[row, 1 : 1 + len(spelling.ids)] = torch.tensor(spelling.ids)
    index = index.to(log_probs.device)[:, None, :].expand(-1, log_probs.shape[1], -1)  # (B, T, 1 + widest)
    picked: NDArray[np.float32] = log_probs.gather(2, index).float().cpu().numpy()
    return [
        _with_wildcard(rows[:length, : 1 + len(spelling.ids)])
        for rows, length, spelling in zip(picked, num_frames.tolist(), spellings, strict=True)
    ]


def _with_wildcard(log_probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Puts the wildcard's column behind the blank's, shape (T, C) to (T, C + 1), and the floor under all."""
    floored = np.clip(np.nan_to_num(log_probs, nan=FLOOR), FLOOR, 0.0)
    blank = floored[:, :1].astype(np.float64)
    # -expm1(x) is 1 - exp(x) without losing digits when the blank is almost certain.
    wildcard = np.log(np.maximum(-np.expm1(blank), np.exp(FLOOR))).astype(np.float32)
    return np.concatenate((floored[:, :1], wildcard, floored[:, 1:]), axis=1)
