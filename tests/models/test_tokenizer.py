"""Text and ids, both ways, for both kinds of tokenizer."""

from collections.abc import Mapping

import pytest

from models.canary.prompt import SPECIAL_TOKENS, prompt_ids
from models.errors import CheckpointError, LanguageError
from models.languages import LANGUAGES
from models.tokenizer import AggregateTokenizer, BpeTokenizer, load_tokenizer
from models.types import DecodingOptions

TEXT = "How now, brown cow?"
HOSTILE = "<|en|> ignore <|endoftext|><pad><|startoftranscript|> this <|nospeech|>"


@pytest.fixture(params=["bpe", "aggregate"])
def either(
    request: pytest.FixtureRequest, bpe_model: bytes, aggregate_models: Mapping[str, bytes]
) -> BpeTokenizer | AggregateTokenizer:
    return BpeTokenizer(bpe_model) if request.param == "bpe" else AggregateTokenizer(aggregate_models)


def test_text_comes_back(either: BpeTokenizer | AggregateTokenizer) -> None:
    ids = either.encode(TEXT, "en")
    assert either.decode(ids) == TEXT
    assert "".join(either.pieces(ids)).replace("▁", " ").strip() == TEXT


def test_special_tokens_are_had_by_name_only(either: BpeTokenizer | AggregateTokenizer) -> None:
    assert set(SPECIAL_TOKENS) <= set(either.special)
    special = set(either.special.values())
    assert not special & set(either.encode(HOSTILE, "en"))
    prompt = prompt_ids(either, DecodingOptions("en", "en", context=HOSTILE), max_context=100)
    assert sum(index in special for index in prompt) == 9


def test_special_and_unknown_ids_are_not_spoken(either: BpeTokenizer | AggregateTokenizer) -> None:
    ids = either.encode(TEXT, "en")
    end, beyond = either.special["<|endoftext|>"], either.size + 3
    assert either.decode([either.special["<|en|>"], *ids, 0, end, beyond]) == TEXT
    assert either.decode([]) == ""


def test_an_aggregate_picks_the_model_of_the_language(aggregate_models: Mapping[str, bytes]) -> None:
    tokenizer = AggregateTokenizer(aggregate_models)
    assert tokenizer.languages == {"en", "de"}
    assert min(tokenizer.encode("COW", "de")) > max(tokenizer.encode("cow", "en"))
    assert tokenizer.decode(tokenizer.encode("HOW NOW", "de")) == "HOW NOW"
    with pytest.raises(LanguageError, match="no language 'fi'"):
        tokenizer.encode("moi", "fi")


def test_an_aggregate_knows_regions(aggregate_models: Mapping[str, bytes]) -> None:
    named = {key if key == "spl_tokens" else f"{key}-{key.upper()}": model for key, model in aggregate_models.items()}
    tokenizer = AggregateTokenizer(named)
    assert tokenizer.languages == {"en", "de"}
    assert tokenizer.encode("cow", "en") == AggregateTokenizer(aggregate_models).encode("cow", "en")


def test_a_single_tokenizer_has_the_languages_of_its_tokens(tokenizer: BpeTokenizer) -> None:
    assert tokenizer.languages == set(LANGUAGES)


def test_long_context_keeps_its_end(tokenizer: BpeTokenizer) -> None:
    short = prompt_ids(tokenizer, DecodingOptions("en", "en"), max_context=3)
    options = DecodingOptions("en", "en", context="the quick brown fox " * 50)
    long = prompt_ids(tokenizer, options, max_context=3)
    assert len(long) == len(short) + 3
    assert tokenizer.decode(long).endswith("fox")


def test_a_language_without_a_token_is_refused(tokenizer: BpeTokenizer) -> None:
    with pytest.raises(LanguageError, match=r"<\|xx\|>"):
        prompt_ids(tokenizer, DecodingOptions("xx", "en"), max_context=0)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "wpe"}, "type 'wpe' are not supported"),
        ({"type": "bpe"}, "lacks 'model_path'"),
        ({"type": "agg"}, "lacks 'langs'"),
        ({"type": "agg", "langs": {"en": {"model_path": "good"}}}, "lacks 'spl_tokens'"),
        ({"type": "bpe", "model_path": "rubbish"}, "not a SentencePiece model"),
        ({"type": "bpe", "model_path": "plain"}, "no canary2 model"),
        ({}, "type None"),
    ],
)
def test_wrong_tokenizers_are_refused(
    section: dict[str, object], message: str, bpe_model: bytes, aggregate_models: Mapping[str, bytes]
) -> None:
    files = {"good": bpe_model, "plain": aggregate_models["en"], "rubbish": b"rubbish"}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(section, files.__getitem__, "some.nemo")
    assert "some.nemo" in str(caught.value)


def test_an_aligner_needs_no_special_tokens(aggregate_models: Mapping[str, bytes]) -> None:
    section = {"type": "bpe", "model_path": "plain"}
    plain = load_tokenizer(section, lambda _: aggregate_models["en"], "some.nemo", prompted=False)
    assert plain.decode(plain.encode(TEXT, "en")) == TEXT
