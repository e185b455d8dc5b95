"""The aligner as a whole, over a tiny random CTC model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alignment.aligner import Aligner, reconcile
from models.alignment.ctc import CtcConfig, CtcModel
from models.alignment.ctc_segments import ScoredSpan
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Hypothesis, Segment, Utterance, Word

PIECES = ["<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz.,?!"]


class Letters:
    """One token per letter, "▁" before each word, "<unk>" for what is not in `PIECES`."""

    def encode(self, text: str, lang: str) -> list[int]:
        return [1, *(PIECES.index(char) if char in PIECES else 0 for char in text.lower())]

    def decode(self, ids) -> str:
        return "".join(self.pieces(ids)).replace("<unk>", "").replace("▁", " ").strip()

    def pieces(self, ids) -> list[str]:
        return [PIECES[index] for index in ids]


def tiny_model() -> CtcModel:
    torch.manual_seed(0)
    encoder = EncoderConfig(num_mels=32, num_layers=2, d_model=32, num_heads=2, subsampling_channels=16)
    model = CtcModel(CtcConfig(FeatureConfig(num_mels=32), encoder, vocab_size=len(PIECES)))
    return model.eval()


MODEL = tiny_model()


@pytest.fixture
def aligner() -> Aligner:
    return Aligner(MODEL, Letters())


def utterance(seconds: float, *, offset: float = 0.0, seed: int = 0, **options) -> Utterance:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
    return Utterance(
        Chunk(Audio(samples), offset), DecodingOptions(**{"source_lang": "en", "target_lang": "en"} | options)
    )


def hypothesis(text: str) -> Hypothesis:
    tokens = tuple(token for word in text.split() for token in Letters().encode(word, "en"))
    return Hypothesis(text, tokens, tuple(-0.1 for _ in tokens), no_speech_prob=0.25)


def check(segments: tuple[Segment, ...], heard: Utterance, written: Hypothesis) -> None:
    """All that holds of every alignment."""
    start, end = heard.chunk.offset, heard.chunk.offset + heard.duration
    assert " ".join(segment.text for segment in segments) == " ".join(written.text.split())
    assert tuple(token for segment in segments for token in segment.tokens) == written.tokens
    previous = start
    for segment in segments:
        assert previous <= segment.start < segment.end <= end
        assert 0.0 <= segment.confidence <= 1.0
        assert segment.no_speech_prob == written.no_speech_prob
        assert " ".join(word.text for word in segment.words) == segment.text
        time = segment.start
        for word in segment.words:
            assert time <= word.start <= word.end <= segment.end
            assert 0.0 <= word.confidence <= 1.0
            time = word.end
        previous = segment.end


TEXTS = st.lists(st.text("abcyz.?!,Xé»", min_size=1, max_size=7), max_size=15).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    text=TEXTS,
    num_samples=st.one_of(st.integers(320, 3000), st.integers(3000, 80_000)),
    offset=st.floats(0.0, 1e5),
    seed=st.integers(0, 20),
)
def test_invariants(text, num_samples, offset, seed):
    heard, written = utterance(num_samples / SAMPLE_RATE, offset=offset, seed=seed), hypothesis(text)
    (segments,) = Aligner(MODEL, Letters()).align([heard], [written])
    check(segments, heard, written)
    assert bool(segments) == bool(text.split())


def test_clip_does_not_depend_on_its_batch_mates(aligner):
    heard = [utterance(seconds, seed=i, offset=10.0 * i) for i, seconds in enumerate((3.0, 7.5, 0.5, 5.01))]
    written = [hypothesis(text) for text in ("hello. world.", "one two three, four. five?", "a", "so it goes.")]
    together = aligner.align(heard, written)
    for alone_heard, alone_written, segments in zip(heard, written, together, strict=True):
        (alone,) = aligner.align([alone_heard], [alone_written])
        check(segments, alone_heard, alone_written)
        assert [segment.text for segment in segments] == [segment.text for segment in alone]
        for one, other in zip(segments, alone, strict=True):
            assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=1e-6)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
            for word, same in zip(one.words, other.words, strict=True):
                assert (word.start, word.end) == (same.start, same.end)
                assert word.confidence == pytest.approx(same.confidence, abs=1e-4)


def test_one_pass_for_all_that_need_it(monkeypatch, aligner):
    shapes = []
    forward = MODEL.forward
    monkeypatch.setattr(
        MODEL, "forward", lambda samples, lengths: shapes.append(samples.shape) or forward(samples, lengths)
    )
    heard = [utterance(1.0), utterance(9.0, target_lang="de"), utterance(2.0), utterance(8.0, timestamps=False)]
    written = [hypothesis(text) for text in ("one.", "zwei.", "", "four.")]
    results = aligner.align([*heard, utterance(1.5)], [*written, hypothesis("five.")])
    assert [len(segments) for segments in results] == [1, 1, 0, 0, 1]
    assert shapes == [(2, 24_000)]
    aligner.align(heard[1:], written[1:])
    assert len(shapes) == 1
    assert aligner.align([], []) == []


def test_text_longer_than_frames_is_spread_with_no_confidence(aligner):
    heard, written = utterance(0.5, offset=3.0), hypothesis("far too many words. for half a second of sound.")
    (segments,) = aligner.align([heard], [written])
    check(segments, heard, written)
    assert len(segments) == 2
    assert segments[0].start == 3.0
    assert segments[-1].end == 3.5
    assert all(segment.confidence == 0.0 for segment in segments)
    assert all(word.confidence == 0.0 and word.start < word.end for segment in segments for word in segment.words)


@pytest.mark.parametrize("text", ["日本語", "...", "— … ?", "ok 日本. ok"])
def test_unknown_tokens_and_bare_punctuation(aligner, text):
    heard, written = utterance(2.0), hypothesis(text)
    (segments,) = aligner.align([heard], [written])
    check(segments, heard, written)


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.08, 0.081])
def test_single_frame_clips(aligner, seconds):
    heard, written = utterance(seconds, offset=1.0), hypothesis("a")
    (segments,) = aligner.align([heard], [written])
    check(segments, heard, written)


def test_white_space_makes_no_difference(aligner):
    heard = utterance(3.0)
    ((one,), (two,)) = aligner.align([heard, heard], [hypothesis("ab cd."), hypothesis(" ab \n cd. ")])
    assert one.text == two.text == "ab cd."


def test_long_sentences_are_cut(aligner):
    text = ", ".join(["word"] * 60) + "."
    heard, written = utterance(35.0), hypothesis(text)
    (segments,) = aligner.align([heard], [written])
    check(segments, heard, written)
    assert len(segments) > 1
    assert all(len(segment.text) <= 200 for segment in segments)
    # The words span 20 s at most; the silence around them may add half a second on either side.
    assert all(segment.end - segment.start <= 21.0 for segment in segments)


def test_translation_has_no_word_times(aligner):
    heard = utterance(4.0, offset=30.0, target_lang="de")
    written = Hypothesis("Guten Tag. Wie geht's?", (5, 6, 7), (0.0, -0.5, -1.0), no_speech_prob=0.1)
    assert aligner.align([heard], [written]) == [
        (
            Segment(
                "Guten Tag. Wie geht's?",
                start=30.0,
                end=34.0,
                confidence=pytest.approx((1 + np.exp(-0.5) + np.exp(-1.0)) / 3),
                tokens=(5, 6, 7),
                avg_logprob=-0.5,
                no_speech_prob=0.1,
            ),
        )
    ]
    (segments,) = aligner.align([heard], [Hypothesis("Ja", (), ())])
    assert segments[0].confidence == 0.0


def test_unequal_numbers_are_refused(aligner):
    with pytest.raises(ValueError, match="argument 2"):
        aligner.align([utterance(1.0)], [])


def test_half_precision(aligner):
    model = tiny_model().to(torch.bfloat16)
    heard, written = utterance(3.0), hypothesis("hello there. you.")
    (segments,) = Aligner(model, Letters()).align([heard], [written])
    check(segments, heard, written)


def word(start: float, end: float) -> tuple[Word]:
    return (Word("x", start, end, 1.0),)


def test_reconcile_takes_the_scored_times_between_words():
    groups = [word(11.0, 12.0), word(15.0, 16.0)]
    scored = [ScoredSpan(0.75, 2.5, 0.0), ScoredSpan(4.5, 6.25, 0.0)]
    assert reconcile(groups, scored, 10.0, 20.0) == [(10.75, 12.5), (14.5, 16.25)]


def test_reconcile_never_goes_against_the_words():
    groups = [word(11.0, 12.0), word(15.0, 16.0)]
    assert reconcile(groups, [ScoredSpan(1.5, 1.6, 0.0), ScoredSpan(5.5, 5.6, 0.0)], 10.0, 20.0) == [
        (11.0, 12.0),
        (15.0, 16.0),
    ]
    assert reconcile(groups, [ScoredSpan(-3.0, 9.0, 0.0), ScoredSpan(1.0, 30.0, 0.0)], 10.0, 20.0) == [
        (10.0, 13.5),
        (13.5, 20.0),
    ]
    assert reconcile(groups, None, 10.0, 20.0) == [(11.0, 12.0), (15.0, 16.0)]
