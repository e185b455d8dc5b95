"""The FakeEngine is exact: other tests lean on every word of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.audio.merge import merge
from models.audio.split import split
from models.errors import EngineError
from models.fake import LOGPROB, WORDS, FakeEngine, Faults, OutOfMemoryError, fake_card
from models.types import Audio, DecodingOptions, Hypothesis, Utterance


def run(engine, utterances):
    engine.admit(list(enumerate(utterances)))
    done = {}
    while engine.active:
        done.update(engine.step())
    return [done[ticket] for ticket in range(len(utterances))]


def test_loud_slots_are_words_with_exact_times(make_utterance):
    [hypothesis] = run(FakeEngine(), [make_utterance("x.xxxxx")])
    assert hypothesis.text == "Alpha charlie delta echo foxtrot. Golf"
    assert hypothesis.tokens == (0, 2, 3, 4, 5, 6)
    assert hypothesis.logprobs == (LOGPROB,) * 6
    first, second = hypothesis.segments
    assert [(word.text, word.start, word.end) for word in first.words] == [
        ("Alpha", 0.0, 0.5),
        ("charlie", 1.0, 1.5),
        ("delta", 1.5, 2.0),
        ("echo", 2.0, 2.5),
        ("foxtrot.", 2.5, 3.0),
    ]
    assert (second.text, second.start, second.end) == ("Golf", 3.0, 3.5)


def test_silence_says_nothing(make_utterance):
    [hypothesis] = run(FakeEngine(), [make_utterance("....")])
    assert hypothesis == Hypothesis("", (), (), (), no_speech_prob=1.0)


def test_offset_counts(make_utterance):
    [hypothesis] = run(FakeEngine(), [make_utterance("xx", offset=2.0)])
    assert hypothesis.text == "echo foxtrot."
    assert [word.start for word in hypothesis.segments[0].words] == [2.0, 2.5]


@given(st.text(alphabet="x.", min_size=1, max_size=60), st.floats(min_value=0.7, max_value=40))
def test_text_does_not_depend_on_the_split(pattern, max_chunk):
    tone = np.where(np.arange(8000) % 2, 0.5, -0.5).astype(np.float32)
    audio = Audio(np.concatenate([tone * (mark == "x") for mark in pattern]).astype(np.float32))
    options = DecodingOptions("en", "en")

    def text(limit):
        return merge(run(FakeEngine(), [Utterance(chunk, options) for chunk in split(audio, limit)]))[0]

    # A cut through a loud slot may leave its middle on either side, but on one only.
    assert text(max_chunk).split() == text(40.0).split()


def test_translation_has_no_words(make_utterance):
    [hypothesis] = run(FakeEngine(), [make_utterance("xx", target="de")])
    assert hypothesis.text == "Alpha_de bravo_de"
    assert [segment.words for segment in hypothesis.segments] == [()]


def test_options_are_obeyed(make_utterance):
    plain, untimed, capped = run(
        FakeEngine(),
        [
            make_utterance("xx", pnc=False),
            make_utterance("xx", timestamps=False),
            make_utterance("xxxx", max_new_tokens=2),
        ],
    )
    assert plain.text == "alpha bravo"
    assert untimed.text == "Alpha bravo"
    assert untimed.segments == ()
    assert capped.tokens == (0, 1)


def test_one_step_per_word_and_one_for_the_end(make_utterance):
    engine = FakeEngine()
    engine.admit([(7, make_utterance("xxx")), (8, make_utterance("x"))])
    assert [[ticket for ticket, _ in engine.step()] for _ in range(4)] == [[], [8], [], [7]]
    assert engine.active == 0


def test_words_repeat_after_the_last(make_utterance):
    [hypothesis] = run(FakeEngine(), [make_utterance("x", offset=0.5 * len(WORDS))])
    assert hypothesis.tokens == (0,)


def test_admission_is_all_or_nothing(make_utterance):
    engine = FakeEngine(faults=Faults(max_padded_seconds=1.0, inadmissible=lambda u: u.options.context == "bad"))
    with pytest.raises(OutOfMemoryError):
        engine.admit([(1, make_utterance("xx")), (2, make_utterance("x"))])
    with pytest.raises(RuntimeError, match="inadmissible"):
        engine.admit([(1, make_utterance("x", context="bad"))])
    with pytest.raises(EngineError, match="twice"):
        engine.admit([(1, make_utterance("x")), (1, make_utterance("x"))])
    with pytest.raises(EngineError, match="longer"):
        engine.admit([(1, make_utterance("x" * 81))])
    assert engine.active == 0
    assert engine.batches == []


def test_faults_of_steps(make_utterance):
    engine = FakeEngine(faults=Faults(poisoned=lambda u: u.options.context == "bad", max_active=2))
    engine.admit([(1, make_utterance("x", context="bad")), (2, make_utterance("xx"))])
    [(ticket, outcome)] = engine.step()
    assert (ticket, type(outcome)) == (1, EngineError)
    engine.admit([(3, make_utterance("x")), (4, make_utterance("x"))])
    with pytest.raises(OutOfMemoryError):
        engine.step()


def test_cancel_frees_and_ignores_the_unknown(make_utterance):
    engine = FakeEngine()
    engine.admit([(1, make_utterance("x"))])
    engine.cancel({1, 99})
    assert engine.active == 0
    assert engine.cancelled == {1}


def test_card():
    card = fake_card()
    assert (card.id, card.owner, len(card.transcribes), len(card.translates)) == ("fake", "aviary", 25, 48)
