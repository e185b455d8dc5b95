"""Where sentences end: words in, runs of words out. Rules of text, and of length once times are known; no audio.

A span is a pair (begin, end) of word indices, end not included. The spans that come out of a function follow each other
and cover all words, so that segments joined by spaces give the text back.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from models.types import Word

# Subtitles longer than this are cut: in seconds, and in characters with spaces.
MAX_DURATION = 20.0
MAX_CHARS = 200

# Cuts are sought in the last part of what fits, so that pieces do not become crumbs: from this share of it on.
MIN_FILL = 0.4

ENDS = ".?!…‽⁇⁈⁉。？！｡։؟।"
# ";" looks the same as the Greek question mark U+037E, and stands for it in most Greek text.
GREEK_ENDS = ENDS + ";\u037e"
PAUSES = ",;:–—،、"
CLOSERS = "\"'”’»«“‘›‹)]}"
OPENERS = CLOSERS + "„‚¿¡([{-–—"
# Those that can only close, wherever they stand alone: « Oui. » has a space before it.
ONLY_CLOSERS = "”’»›)]}"

# Abbreviations that are followed by what they belong to, without the last full stop. "etc." and "No." are not here:
# they end sentences as often as not.
_EVERYWHERE = "mr mrs ms dr prof st vs cf ca gen col capt lt sgt hon rev fig tel vol nr"
_ABBREVIATIONS = {
    "bg": "ул бул гр вж напр проф д-р инж",
    "cs": "např tzv tj resp ing mgr bc str čl odst mj popř",
    "da": "f.eks bl.a fx hr kl pga ift jf",
    "de": "bzw evtl ggf vgl inkl ing dipl hl hr fr str zzgl sog geb z.b",
    "el": "κ κα κος π.χ δηλ βλ αρ καθ",
    "en": "approx dept est messrs sr jr mt ft e.g i.e",
    "es": "sr sra srta dña ud uds pág núm art",
    "et": "nt lk hr pr st",
    "fi": "esim mm ns ks ym",
    "fr": "mme mlle mgr av bd art env",
    "hr": "npr tzv tj str čl ing gđa",
    "hu": "pl ún ill kb özv ifj",
    "it": "sig sigg sig.ra dott avv ing art pag",
    "lt": "pvz gerb vad",
    "lv": "piem utt t.i",
    "mt": "eż",
    "nl": "bijv bv dhr mevr mw drs ing zgn evt jl",
    "pl": "np tzw tj ul al al ks inż mgr hab płk ppłk im",
    "pt": "sra exmo exma pág art av",
    "ro": "dl dna nr str pag art",
    "ru": "ул им проф акад напр см т.е т.к гр",
    "sk": "napr tzv tj resp ing mgr str čl",
    "sl": "npr tj oz ga g",
    "sv": "t.ex bl.a d.v.s s.k kl resp f.d",
    "uk": "вул ім проф акад напр див т.зв гр",
}
_ABBREVIATION_SETS = {lang: frozenset(f"{_EVERYWHERE} {words}".split()) for lang, words in _ABBREVIATIONS.items()}
_COMMON = frozenset(_EVERYWHERE.split())

# Languages that write ordinals with a full stop: "am 3. Oktober".
_ORDINAL_LANGS = frozenset(("cs", "da", "de", "et", "fi", "hr", "hu", "lv", "pl", "sk", "sl"))

_INITIAL = re.compile(r"[^\W\d_]\.")  # J.
_DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.){2,}")  # e.g. U.S. z.B. π.χ.
_TIME_OF_DAY = frozenset(("a.m.", "p.m."))  # ends sentences as often as not
_ORDINAL = re.compile(r"\d{1,2}\.|[IVX]+\.")


def split_sentences(text: str, lang: str) -> list[str]:
    """The sentences of a text; joined by spaces they are the text, with runs of white space made one space.

    Args:
        text: Any text.
        lang: ISO 639-1 code of its language.
    """
    words = text.split()
    return [" ".join(words[begin:end]) for begin, end in sentence_spans(words, lang)]


def sentence_spans(words: Sequence[str], lang: str) -> list[tuple[int, int]]:
    """Spans of the sentences.

    A sentence ends behind a word whose last character is one of `ENDS` (in Greek also ";"), closing quotes and brackets
    not counted. Not so behind abbreviations, initials and ordinals, nor at a full stop or an ellipsis before a
    lower-case word, unless the whole text has no capitals.

    Args:
        words: Without white space.
        lang: ISO 639-1 code of the language.
    """
    cased = any(word != word.lower() for word in words)
    cuts = [
        index + 1
        for index in range(len(words) - 1)
        if _is_end(words, index, lang, cased) and not _only_closes(words[index + 1])
    ]
    return _spans(cuts, len(words))


def cut_long(
    words: Sequence[Word], max_duration: float = MAX_DURATION, max_chars: int = MAX_CHARS
) -> list[tuple[int, int]]:
    """Spans of the parts of a sentence that are short enough for a subtitle.

    Cuts behind the last pause mark (`PAUSES`) that fits, else at the longest silence between two words. A
    single word is never cut, however long it is.

    Args:
        words: A sentence, timed.
        max_duration: Longest part, in seconds.
        max_chars: Longest part, in characters with spaces.
    """
    cuts, begin = [], 0
    while (end := _fitting(words, begin, max_duration, max_chars)) < len(words):
        begin = _best_cut(words, begin, end)
        cuts.append(begin)
    return _spans(cuts, len(words))


def _spans(cuts: Sequence[int], count: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *cuts, count])) if count else []


def _only_closes(word: str) -> bool:
    return all(char in ONLY_CLOSERS for char in word)


def _is_end(words: Sequence[str], index: int, lang: str, cased: bool) -> bool:
    """Whether a sentence ends behind a word that is not the last."""
    # A closing quote that stands alone belongs to the word before it.
    while index > 0 and _only_closes(words[index]):
        index -= 1
    word = words[index].rstrip(CLOSERS)
    if not word or word[-1] not in (GREEK_ENDS if lang == "el" else ENDS):
        return False
    following = words[index + 1].lstrip(CLOSERS + "„¿¡([{-–—")
    if word[-1] in ".…" and cased and following[:1].islower():
        return False
    return not (
        word.endswith(".") and not word.endswith("..") and _is_abbreviation(word.lstrip(CLOSERS + "„([{"), lang)
    )


def _is_abbreviation(word: str, lang: str) -> bool:
    """Whether the full stop at the end of a word more likely belongs to the word than to the sentence."""
    if _INITIAL.fullmatch(word):
        return not (lang == "en" and word == "I.")
    if _DOTTED.fullmatch(word):
        return word.lower() not in _TIME_OF_DAY
    if lang in _ORDINAL_LANGS and _ORDINAL.fullmatch(word):
        return True
    return word[:-1].lower() in _ABBREVIATION_SETS.get(lang, _COMMON)


def _fitting(words: Sequence[Word], begin: int, max_duration: float, max_chars: int) -> int:
    """End of the longest span from ``begin`` that keeps the limits; at least one word."""
    chars = -1
    for end in range(begin, len(words)):
        chars += 1 + len(words[end].text)
        if end > begin and (chars > max_chars or words[end].end - words[begin].start > max_duration):
            return end
    return len(words)


def _best_cut(words: Sequence[Word], begin: int, end: int) -> int:
    """Where to cut ``words[begin:end]``, which fits, from the words behind it."""
    first = begin + max(1, int(MIN_FILL * (end - begin)))
    for cut in range(end, first - 1, -1):
        if words[cut - 1].text[-1] in PAUSES:
            return cut
    return max(range(first, end + 1), key=lambda cut: (words[cut].start - words[cut - 1].end, cut))
