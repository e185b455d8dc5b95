"""Canary's prompt: what the decoder is told before its first word.

The ``canary2`` format of NeMo: context, start, emotion, source and target language, punctuation,
inverse text normalisation, timestamps, diarisation.
"""

from models.languages import LANGUAGES

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
    return (
        f"{START_OF_CONTEXT}{context}{START_OF_TRANSCRIPT}<|emo:undefined|>"
        f"<|{source_lang}|><|{target_lang}|>{'<|pnc|>' if pnc else '<|nopnc|>'}"
        "<|noitn|><|notimestamp|><|nodiarize|>"
    )
