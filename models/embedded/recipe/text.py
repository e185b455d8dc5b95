"""Sentences to speak, and the one place that says which split a sentence belongs to.

In: the tab-separated files described in the recipe's README. Out: cleaned sentences.
"""

import gzip
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " ", "…": "..."})
# Everything a recogniser cannot hear or that synthesisers read in unpredictable ways.
_UNSPEAKABLE = re.compile(r"[\d\[\](){}<>|\\/@#$%^&*_+=~`\"]|\.\.|[A-Z]{2,}")
_TEST_BUCKETS = 3  # of 100, each for dev and for test


def clean(sentence: str) -> str:
    """Composed Unicode, plain quotes and dashes, single spaces."""
    composed = unicodedata.normalize("NFC", sentence).translate(_QUOTES)
    return " ".join(composed.split())


def split_of(sentence: str) -> str:
    """The split of a sentence: "train", "dev" or "test", by a hash of its letters.

    Case, punctuation and spacing do not count, so that near-copies land in the same split.
    """
    letters = "".join(char for char in sentence.lower() if char.isalnum())
    bucket = int(hashlib.sha256(letters.encode()).hexdigest(), 16) % 100
    if bucket < _TEST_BUCKETS:
        return "test"
    return "dev" if bucket < 2 * _TEST_BUCKETS else "train"


def is_speakable(sentence: str, max_chars: int) -> bool:
    """Whether every synthesiser reads the sentence the same way: no digits, symbols or acronyms."""
    return 3 <= len(sentence) <= max_chars and not _UNSPEAKABLE.search(sentence)


def without_punctuation(text: str) -> str:
    """Lower case, letters, apostrophes and hyphens inside words only."""
    kept = "".join(char if char.isalnum() or char in "'-" else " " for char in text.lower())
    return " ".join(word for word in (part.strip("'-") for part in kept.split()) if word)


def sentences(folder: Path, language: str) -> list[str]:
    """All distinct cleaned sentences of a language in the Tatoeba pair files, sorted."""
    found: set[str] = set()
    pattern = "tatoeba.en-*.tsv.gz" if language == "en" else f"tatoeba.en-{language}.tsv.gz"
    for path in sorted(folder.glob(pattern)):
        found.update(column(path, 0 if language == "en" else 1))
    return sorted(found)


def column(path: Path, index: int) -> Iterator[str]:
    """One column of a compressed tab-separated file, cleaned."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) > index:
                yield clean(fields[index])
