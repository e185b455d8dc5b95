"""Rules of text: where sentences end, and where long ones are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alignment.segments import cut_long, sentence_spans, split_sentences
from models.languages import LANGUAGES
from models.types import Word

# language, sentences; joined by spaces they must come apart again
SENTENCES = [
    ("en", ["Hello world.", "How are you?", "Fine!", "Well…", "Good."]),
    ("en", ["Mr. Smith met Dr. J. R. Brown at 3.5 p.m.", "It cost $4.50.", "OK."]),
    ("en", ["We like fruit, e.g. Apples and pears.", "Is that so?"]),
    ("en", ["So do I.", "Then we go."]),
    ("en", ["No.", "He said no.", "Etc. is a word."]),
    ("en", ['"Stop!"', "He ran.", "(It was late.)", "Night fell."]),
    ("en", ["He waited... and waited.", "Nothing."]),
    ("en", ["The U.S. Senate met on St. Patrick's Day.", "It voted."]),
    ("en", ["all lower case.", "so every stop ends a sentence.", "even so"]),
    ("en", ["What?!", "Really?!"]),
    ("de", ["Am 3. Oktober kam z. B. Herr Dr. Müller.", "Er blieb bis 1990.", "Dann ging er."]),
    ("de", ["Das ist u.a. teuer, bzw. Unsinn.", "„Ach so.“", "Gut."]),
    ("fr", ["« Bonjour ! »", "Comment allez-vous ?", "M. Dupont et Mme. Durand vont bien."]),
    ("es", ["¿Qué tal?", "¡Muy bien!", "El Sr. García llegó."]),
    ("el", ["Τι κάνεις;", "Καλά, π.χ. Πολύ καλά.", "Εσύ;", "Ναι."]),
    ("en", ["One thing; Another thing."]),
    ("ru", ["Он живёт на ул. Ленина.", "А. С. Пушкин жил там же.", "Правда?"]),
    ("cs", ["Přišel např. Karel.", "Dne 5. Května odešel."]),
    ("pl", ["Mieszkał przy ul. Długiej, tj. Daleko.", "Tak."]),
]


@pytest.mark.parametrize(("lang", "sentences"), SENTENCES)
def test_sentences(lang, sentences):
    assert split_sentences(" ".join(sentences), lang) == sentences


def test_no_text_has_no_sentences():
    assert split_sentences("", "en") == []
    assert split_sentences(" \n ", "en") == []


def test_marks_alone_are_a_sentence():
    assert split_sentences("...", "en") == ["..."]
    assert split_sentences("? ! .", "en") == ["?", "!", "."]
    assert split_sentences("» ” )", "fr") == ["» ” )"]


def covers(spans: list[tuple[int, int]], count: int) -> bool:
    """Whether spans follow each other from 0 to ``count`` and none is empty."""
    return [index for begin, end in spans for index in range(begin, end)] == list(range(count)) and all(
        begin < end for begin, end in spans
    )


WORDS = st.lists(st.text("aB1.,;?!…»«“”\"')(Ié", min_size=1, max_size=6), max_size=30)


@settings(deadline=None)
@given(words=WORDS, lang=st.sampled_from(sorted(LANGUAGES)))
def test_sentences_give_the_text_back(words, lang):
    assert covers(sentence_spans(words, lang), len(words))
    assert " ".join(split_sentences(" ".join(words), lang)) == " ".join(words)


@settings(deadline=None)
@given(
    texts=st.lists(st.text("ab,", min_size=1, max_size=12), max_size=40),
    steps=st.lists(st.floats(0.0, 3.0), min_size=40, max_size=40),
    max_duration=st.floats(0.5, 10.0),
    max_chars=st.integers(1, 60),
)
def test_parts_keep_the_limits(texts, steps, max_duration, max_chars):
    words, time = [], 0.0
    for text, step in zip(texts, steps, strict=False):
        words.append(Word(text, time, time + step, 1.0))
        time += step
    spans = cut_long(words, max_duration, max_chars)
    assert covers(spans, len(words))
    for begin, end in spans:
        if end - begin > 1:
            assert len(" ".join(word.text for word in words[begin:end])) <= max_chars
            assert words[end - 1].end - words[begin].start <= max_duration


def timed(text: str, seconds: float = 0.5) -> list[Word]:
    return [Word(word, seconds * i, seconds * (i + 1), 1.0) for i, word in enumerate(text.split())]


def test_short_sentences_stay_whole():
    assert cut_long(timed("one two three")) == [(0, 3)]


def test_cuts_at_commas_first():
    words = timed("one two three, four five, six seven eight")
    assert cut_long(words, max_duration=3.2) == [(0, 5), (5, 8)]


def test_cuts_at_the_longest_silence_without_commas():
    words = timed("one two three four five six seven eight")
    words = [Word(w.text, w.start + (i >= 5), w.end + (i >= 5), 1.0) for i, w in enumerate(words)]
    assert cut_long(words, max_duration=4.2) == [(0, 5), (5, 8)]
