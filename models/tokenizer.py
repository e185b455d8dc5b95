"""Canary's tokenizers: text in, token ids out, and back.

Two kinds: one SentencePiece model with the special tokens inside it (canary-1b-v2), and one model per language
beside one of special tokens, their ids laid end to end (canary-1b-flash, canary-180m-flash).

Special tokens steer the model, so text never turns into them: they are only had by name, from `special`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import sentencepiece

from models.errors import CheckpointError, LanguageError
from models.languages import LANGUAGES

END_OF_TEXT = "<|endoftext|>"
_START_OF_CONTEXT = "<|startofcontext|>"
_SPECIAL_TOKENS = "spl_tokens"  # the name of the model of special tokens among those of languages
_IS_SPECIAL = re.compile(r"<\|.+\|>|<pad>|<s>|</s>")
_UNKNOWN = "<unk>"
_SPACE = "▁"


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    @property
    def size(self) -> int:
        """Number of ids."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of the special tokens by name ("<|en|>")."""
        ...

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes of the languages it was made for, of those known here."""
        ...

    def encode(self, text: str, lang: str) -> list[int]:
        """Ids of a text in a language (ISO 639-1); never those of special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, stripped; special and unknown tokens and ids beyond the vocabulary are dropped."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id; "▁" stands for a space."""
        ...

    def open_context(self, text: str, lang: str) -> list[int]:
        """Ids of the start-of-context token with earlier text behind it: how every prompt begins."""
        ...


class BpeTokenizer:
    """One SentencePiece model that holds the special tokens too (NeMo's ``CanaryBPETokenizer``)."""

    def __init__(self, model: bytes) -> None:
        self._model = _load(model)
        self.size: int = self._model.get_piece_size()
        self.special = _special_ids(self._model)
        self.languages = frozenset(code for code in LANGUAGES if f"<|{code}|>" in self.special)
        self._special_ids = frozenset(self.special.values())
        self._silent_ids = self._special_ids | {self._model.unk_id()}

    def encode(self, text: str, lang: str) -> list[int]:  # noqa: ARG002 (the other kind needs it)
        """Ids of a text; the language makes no difference to this kind."""
        return [index for index in self._model.encode(text) if index not in self._special_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, stripped; special and unknown tokens and ids beyond the vocabulary are dropped."""
        kept = [index for index in ids if index < self.size and index not in self._silent_ids]
        return str(self._model.decode(kept)).strip()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id."""
        return [self._model.id_to_piece(index) for index in ids]

    def open_context(self, text: str, lang: str) -> list[int]:  # noqa: ARG002 (the other kind needs it)
        """Start of context and text, as SentencePiece writes them when they stand at the start of a string.

        That includes the "▁" which it puts before the first piece: NeMo encodes the prompt as one string, and the
        models are trained with it. Text directly behind a special token has none.
        """
        lead: list[int] = self._model.encode(_START_OF_CONTEXT)
        both: list[int] = self._model.encode(_START_OF_CONTEXT + text.strip())
        return lead + [index for index in both[len(lead) :] if index not in self._special_ids]


class AggregateTokenizer:
    """A model of special tokens and one of each language, ids laid end to end (NeMo's ``CanaryTokenizer``)."""

    def __init__(self, models: Mapping[str, bytes]) -> None:
        loaded = {lang: _load(model) for lang, model in models.items()}
        sizes = [model.get_piece_size() for model in loaded.values()]
        self._offsets = dict(zip(loaded, accumulate(sizes, initial=0), strict=False))
        self._models = loaded
        self.size = sum(sizes)
        # There are special tokens for many languages that no model is there for.
        self.languages = frozenset(key.split("-")[0] for key in loaded).intersection(LANGUAGES)
        first = self._offsets[_SPECIAL_TOKENS]
        self.special = {piece: first + index for piece, index in _special_ids(loaded[_SPECIAL_TOKENS]).items()}
        self._pieces = [piece for model in loaded.values() for piece in _pieces(model)]

    def encode(self, text: str, lang: str) -> list[int]:
        """Ids of a text by the model of its language.

        Raises:
            LanguageError: There is no model for it.
        """
        key = self._key(lang)
        offset = self._offsets[key]
        # No model of a language holds a special token, so none can come out.
        return [offset + index for index in self._models[key].encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, stripped; special and unknown tokens and ids beyond the vocabulary are dropped."""
        pieces = [self._pieces[index] for index in ids if index < self.size]
        kept = (piece for piece in pieces if piece != _UNKNOWN and not _IS_SPECIAL.fullmatch(piece))
        return "".join(kept).replace(_SPACE, " ").strip()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id."""
        return [self._pieces[index] for index in ids]

    def open_context(self, text: str, lang: str) -> list[int]:
        """Start of context and text, by the model of its language."""
        text = text.strip()
        return [self.special[_START_OF_CONTEXT], *(self.encode(text, lang) if text else [])]

    def _key(self, lang: str) -> str:
        """The model for a language: "de", or with a region "de-DE"."""
        for key in self._models:
            if key == lang or key.startswith(f"{lang}-"):
                return key
        raise LanguageError(f"the tokenizer of this model has no language {lang!r}")


def load_tokenizer(
    config: Mapping[str, Any], read: Callable[[str], bytes], source: str, *, prompted: bool = True
) -> BpeTokenizer | AggregateTokenizer:
    """Builds the tokenizer that the ``tokenizer`` section of a NeMo configuration describes.

    Args:
        config: The section.
        read: Gives the content of a file that the section names.
        source: The bundle, for messages.
        prompted: Whether it must have what Canary's prompt is made of; an aligner's need not.

    Raises:
        CheckpointError: The section or a file is of another kind or lacks Canary's special tokens.
    """
    kind = config.get("type")
    try:
        tokenizer: BpeTokenizer | AggregateTokenizer
        if kind == "bpe":
            tokenizer = BpeTokenizer(read(config["model_path"]))
        elif kind == "agg":
            tokenizer = AggregateTokenizer({lang: read(part["model_path"]) for lang, part in config["langs"].items()})
        else:
            raise CheckpointError(f"{source}: tokenizers of type {kind!r} are not supported")
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: the tokenizer section of the configuration lacks {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{source}: its tokenizer is not a SentencePiece model ({error})") from error
    lacking = [token for token in (END_OF_TEXT, _START_OF_CONTEXT) if token not in tokenizer.special]
    if prompted and lacking:
        raise CheckpointError(f"{source}: its tokenizer has no {' or '.join(lacking)}; this is no canary2 model")
    return tokenizer


def _load(model: bytes) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def _special_ids(model: Any) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(_pieces(model)) if _IS_SPECIAL.fullmatch(piece)}


def _pieces(model: Any) -> list[str]:
    return [model.id_to_piece(index) for index in range(model.get_piece_size())]
