"""Canary's prompt: what the decoder is told before its first word.

The ``canary2`` format of NeMo: context, start, emotion, source and target language, punctuation,
inverse text normalisation, timestamps, diarisation.
"""

from models.errors import LanguageError
from models.languages import LANGUAGES
from models.tokenizer import Tokenizer
from models.types import DecodingOptions

START_OF_CONTEXT = "<|startofcontext|>"
START_OF_TRANSCRIPT = "<|startoftranscript|>"
END_OF_TEXT = "<|endoftext|>"
NO_SPEECH = "<|nospeech|>"
PAD = "<pad>"

# The special tokens of a canary2 tokenizer; "<unk>" comes before them.
SPECIAL_TOKENS = (
    NO_SPEECH,
    PAD,
    END_OF_TEXT,
    START_OF_TRANSCRIPT,
    "<|pnc|>",
    "<|nopnc|>",
    START_OF_CONTEXT,
    "<|itn|>",
    "<|noitn|>",
    "<|timestamp|>",
    "<|notimestamp|>",
    "<|diarize|>",
    "<|nodiarize|>",
    "<|emo:undefined|>",
    "<|emo:neutral|>",
    "<|emo:happy|>",
    "<|emo:sad|>",
    "<|emo:angry|>",
    *(f"<|{code}|>" for code in sorted(LANGUAGES)),
)


def canary2_prompt(source_lang: str, target_lang: str, *, pnc: bool, context: str = "") -> str:
    """The prompt as text; tokenized as a whole, as NeMo does.

    Args:
        source_lang: ISO 639-1 code of the speech.
        target_lang: ISO 639-1 code of the text: the same to transcribe, another to translate.
        pnc: Whether to write punctuation and capitals.
        context: Text that came before, to bias the wording; may be empty.
    """
    return f"{START_OF_CONTEXT}{context}{''.join(_behind_context(source_lang, target_lang, pnc))}"


def prompt_ids(tokenizer: Tokenizer, options: DecodingOptions, max_context: int) -> list[int]:
    """The prompt as ids: what NeMo makes of `canary2_prompt`, except that context never becomes special tokens.

    Args:
        tokenizer: The model's.
        options: Languages, punctuation and context.
        max_context: Tokens of context to keep, the last ones.

    Raises:
        LanguageError: The tokenizer has no token for one of the languages.
    """
    start = tokenizer.open_context("", options.target_lang)
    context = tokenizer.open_context(options.context, options.target_lang)[len(start) :]
    behind = []
    for token in _behind_context(options.source_lang, options.target_lang, options.pnc):
        if token not in tokenizer.special:
            raise LanguageError(f"this model has no token {token}")
        behind.append(tokenizer.special[token])
    return start + context[max(0, len(context) - max_context) :] + behind


def _behind_context(source_lang: str, target_lang: str, pnc: bool) -> tuple[str, ...]:
    return (
        START_OF_TRANSCRIPT,
        "<|emo:undefined|>",
        f"<|{source_lang}|>",
        f"<|{target_lang}|>",
        "<|pnc|>" if pnc else "<|nopnc|>",
        "<|noitn|>",
        "<|notimestamp|>",
        "<|nodiarize|>",
    )
