"""The 25 languages of Canary-1B-v2 and Parakeet-TDT-0.6B-v3: ISO 639-1 codes and English names."""

from types import MappingProxyType

from models.errors import LanguageError

LANGUAGES = MappingProxyType(
    {
        "bg": "Bulgarian",
        "hr": "Croatian",
        "cs": "Czech",
        "da": "Danish",
        "nl": "Dutch",
        "en": "English",
        "et": "Estonian",
        "fi": "Finnish",
        "fr": "French",
        "de": "German",
        "el": "Greek",
        "hu": "Hungarian",
        "it": "Italian",
        "lv": "Latvian",
        "lt": "Lithuanian",
        "mt": "Maltese",
        "pl": "Polish",
        "pt": "Portuguese",
        "ro": "Romanian",
        "sk": "Slovak",
        "sl": "Slovenian",
        "es": "Spanish",
        "sv": "Swedish",
        "ru": "Russian",
        "uk": "Ukrainian",
    }
)

_CODES = {name.lower(): code for code, name in LANGUAGES.items()}


def parse_language(value: str) -> str:
    """Turns what people write into an ISO 639-1 code.

    Takes codes ("de"), codes with a region ("de-DE", "pt_BR") and English names ("German"), in any case.

    Raises:
        LanguageError: It is none of the 25 languages.
    """
    text = value.strip().lower()
    code = _CODES.get(text) or text.replace("_", "-").split("-")[0]
    if code not in LANGUAGES:
        raise LanguageError(f"unknown language {value!r}; known: {', '.join(sorted(LANGUAGES))}")
    return code
