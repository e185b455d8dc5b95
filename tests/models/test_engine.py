"""The engine on small bundles with random weights: what it promises whatever the weights are."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engine import Engine, SpeechEngine, load_engine
from models.errors import EngineError, LanguageError
from models.types import Audio, Chunk, DecodingOptions, Hypothesis, Segment, Utterance

Outcomes = dict[int, Hypothesis | EngineError]


@pytest.fixture(scope="module")
def v2(bundle_path: Path) -> SpeechEngine:
    return load_engine(str(bundle_path), device="cpu")


@pytest.fixture(scope="module")
def flash(flash_path: Path) -> SpeechEngine:
    return load_engine(str(flash_path), device="cpu", timestamps=False)


@pytest.fixture(params=["v2", "flash"])
def engine(request: pytest.FixtureRequest) -> SpeechEngine:
    found: SpeechEngine = request.getfixturevalue(request.param)
    assert found.active == 0
    return found


def _finish(engine: Engine) -> Outcomes:
    outcomes: Outcomes = {}
    while engine.active:
        outcomes.update(engine.step())
    return outcomes


def _decoded(engine: Engine, utterances: Sequence[Utterance]) -> list[Hypothesis]:
    engine.admit(list(enumerate(utterances)))
    outcomes = _finish(engine)
    found = [outcomes[ticket] for ticket in range(len(utterances))]
    assert all(isinstance(hypothesis, Hypothesis) for hypothesis in found)
    return found  # type: ignore[return-value]


def _alone(engine: Engine, utterances: Sequence[Utterance]) -> list[Hypothesis]:
    return [_decoded(engine, [utterance])[0] for utterance in utterances]


def _with(utterance: Utterance, **options: object) -> Utterance:
    return dataclasses.replace(utterance, options=dataclasses.replace(utterance.options, **options))


def _same(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    """Equal in everything that is said; equal numbers up to the order of sums."""
    for a, b in zip(found, expected, strict=True):
        assert (a.text, a.tokens) == (b.text, b.tokens)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=1e-4)
        assert [(s.text, s.start, s.end) for s in a.segments] == [(s.text, s.start, s.end) for s in b.segments]


def test_neighbours_do_not_matter(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    alone = _alone(engine, utterances)
    assert len({hypothesis.tokens for hypothesis in alone}) > 3
    _same(_decoded(engine, utterances), alone)
    _same(_decoded(engine, utterances[::-1])[::-1], alone)
    _same(_decoded(engine, utterances[:2]), alone[:2])


def test_joining_in_the_middle_does_not_matter(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    alone = _alone(engine, utterances)
    outcomes: Outcomes = {}
    for ticket, utterance in enumerate(utterances):
        engine.admit([(ticket, utterance)])
        for _ in range(3):
            outcomes.update(engine.step())
    outcomes.update(_finish(engine))
    _same([outcomes[ticket] for ticket in range(len(utterances))], alone)  # type: ignore[misc]


def test_contexts_of_different_length_share_a_batch(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    contexts = ["", "How now, brown cow?", "She sells"]
    mixed = [_with(utterance, context=text) for utterance, text in zip(utterances, contexts, strict=False)]
    _same(_decoded(engine, mixed), _alone(engine, mixed))


def test_nobody_waits_for_the_slowest(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    engine.admit(list(enumerate(utterances)))
    finished_at: dict[int, int] = {}
    tokens: dict[int, int] = {}
    step = 0
    while engine.active:
        step += 1
        for ticket, outcome in engine.step():
            assert isinstance(outcome, Hypothesis)
            finished_at[ticket], tokens[ticket] = step, len(outcome.tokens)
        assert engine.active == len(utterances) - len(finished_at)
    # A text is out in the step of its last token, or that of the end of text behind it.
    assert all(finished_at[ticket] - tokens[ticket] in (0, 1) for ticket in tokens)
    assert len(set(finished_at.values())) > 2


def test_what_a_hypothesis_holds(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    for hypothesis in _decoded(engine, utterances):
        assert len(hypothesis.tokens) == len(hypothesis.logprobs)
        assert all(math.isfinite(logprob) and logprob <= 0 for logprob in hypothesis.logprobs)
        assert 0 < hypothesis.no_speech_prob < 1
        assert hypothesis.text == hypothesis.text.strip()


def test_logprobs_are_those_of_the_whole_sequence(flash: SpeechEngine, utterances: list[Utterance]) -> None:
    """The cache changes nothing: scoring the whole text at once gives the same log-probabilities."""
    from models.canary.prompt import prompt_ids

    model, tokenizer = flash._recogniser._model, flash._recogniser.tokenizer
    (hypothesis,) = _decoded(flash, utterances[:1])
    prompt = prompt_ids(tokenizer, utterances[0].options, 0)
    samples = torch.from_numpy(utterances[0].chunk.audio.samples)[None]
    with torch.inference_mode():
        states, num_states = model.encode(samples, torch.tensor([samples.shape[1]]))
        logits = model.decoder(torch.tensor([prompt + list(hypothesis.tokens)]), states, num_states)
    scores = torch.log_softmax(logits[0, len(prompt) - 1 :], dim=-1)
    expected = [scores[place, token].item() for place, token in enumerate(hypothesis.tokens)]
    assert hypothesis.logprobs == pytest.approx(expected, abs=1e-4)
    end = tokenizer.special["<|endoftext|>"]
    assert hypothesis.no_speech_prob == pytest.approx(scores[0, end].exp().item(), abs=1e-5)


@pytest.mark.parametrize("limit", [1, 3])
def test_max_new_tokens(engine: SpeechEngine, utterances: list[Utterance], limit: int) -> None:
    full = _decoded(engine, utterances)
    short = _decoded(engine, [_with(utterance, max_new_tokens=limit) for utterance in utterances])
    assert [hypothesis.tokens for hypothesis in short] == [hypothesis.tokens[:limit] for hypothesis in full]


def test_the_model_s_own_limit(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    """NeMo's `max_generation_delta`, by the clip's own length: prompt and text are at most 50 more than its states."""
    for utterance, hypothesis in zip(utterances, _decoded(engine, utterances), strict=True):
        states = math.ceil(max(utterance.duration, 1) * 100 / 8)
        assert len(hypothesis.tokens) <= states + 50 - 9


def test_context_longer_than_the_decoder_is_cut(flash: SpeechEngine, utterances: list[Utterance]) -> None:
    (hypothesis,) = _decoded(flash, [_with(utterances[2], context="the quick brown fox " * 100)])
    assert len(hypothesis.tokens) <= 96 - 48 - 9


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0), np.zeros(1), np.zeros(16_000), np.full(8_000, np.nan), np.full(20_000, np.inf), np.full(99, 1e30)],
    ids=["empty", "one sample", "silence", "not numbers", "infinite", "huge"],
)
def test_odd_audio_does_not_crash(v2: SpeechEngine, samples: np.ndarray, utterances: list[Utterance]) -> None:
    odd = Utterance(Chunk(Audio(samples.astype(np.float32))), utterances[0].options)
    v2.admit([(1, odd), (2, utterances[1])])
    outcomes = _finish(v2)
    assert outcomes.keys() == {1, 2}
    _same([outcomes[2]], _alone(v2, utterances[1:2]))  # type: ignore[list-item]


def test_scores_that_are_not_numbers_fail_alone(v2: SpeechEngine, utterances: list[Utterance]) -> None:
    alone = _alone(v2, utterances[1:2])
    v2.admit([(1, utterances[0]), (2, utterances[1])])
    cohort = v2._admitted[0].cohort
    cohort._logits = cohort._logits.clone()
    cohort._logits[0] = math.nan
    outcomes = _finish(v2)
    assert isinstance(outcomes[1], EngineError)
    _same([outcomes[2]], alone)  # type: ignore[list-item]


def test_short_clips_are_timed_inside_themselves(v2: SpeechEngine, make_clip: Callable[[float], Audio]) -> None:
    for seconds in (0.05, 0.4, 2.0):
        utterance = Utterance(Chunk(make_clip(seconds), offset=30.0), DecodingOptions("en", "en"))
        (hypothesis,) = _decoded(v2, [utterance])
        assert hypothesis.segments
        for segment in hypothesis.segments:
            assert 30 <= segment.start <= segment.end <= 30 + seconds + 1e-6
        assert " ".join(segment.text for segment in hypothesis.segments) == " ".join(hypothesis.text.split())


def test_times_only_where_asked_for(v2: SpeechEngine, flash: SpeechEngine, utterances: list[Utterance]) -> None:
    (timed,) = _decoded(v2, utterances[:1])
    (untimed,) = _decoded(v2, [_with(utterances[0], timestamps=False)])
    assert timed.segments
    assert not untimed.segments
    assert dataclasses.replace(timed, segments=()) == untimed
    assert not _decoded(flash, utterances[:1])[0].segments  # it has no aligner


def test_cancelled_utterances_never_come_out(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    alone = _alone(engine, utterances[:3])
    engine.admit(list(enumerate(utterances[:3])))
    engine.step()
    engine.cancel({1, 99})
    assert engine.active == 2
    outcomes = _finish(engine)
    _same([outcomes[0], outcomes[2]], [alone[0], alone[2]])  # type: ignore[list-item]
    engine.admit([(7, utterances[0])])
    engine.cancel({7})
    assert engine.active == 0
    assert engine.step() == []


def test_nothing_is_admitted_where_a_language_is_unknown(flash: SpeechEngine, utterances: list[Utterance]) -> None:
    with pytest.raises(LanguageError):
        flash.admit([(1, utterances[0]), (2, _with(utterances[1], source_lang="xx"))])
    assert flash.active == 0


def test_nothing_is_admitted_where_encoding_fails(v2: SpeechEngine, utterances: list[Utterance]) -> None:
    stereo = Utterance(Chunk(Audio(np.zeros((20_000, 2), np.float32))), utterances[0].options)
    with pytest.raises(EngineError, match="could not be encoded"):
        v2.admit([(1, stereo)])
    v2.admit([])
    assert v2.active == 0


def test_a_step_that_fails_fails_its_cohort_alone(v2: SpeechEngine, utterances: list[Utterance]) -> None:
    alone = _alone(v2, utterances[2:3])
    v2.admit([(1, utterances[0]), (2, utterances[1])])
    v2.admit([(3, utterances[2])])
    cache = v2._admitted[0].cohort._cache
    cache.lengths = cache.lengths + 10_000  # beyond what it holds
    outcomes = _finish(v2)
    assert isinstance(outcomes[1], EngineError)
    assert isinstance(outcomes[2], EngineError)
    assert "decoding failed" in str(outcomes[1])
    assert outcomes[1].__cause__ is not None
    _same([outcomes[3]], alone)  # type: ignore[list-item]


class _FussyAligner:
    """Fails whenever a clip is longer than five seconds."""

    def align(self, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis]) -> list[tuple[Segment, ...]]:
        if any(utterance.duration > 5 for utterance in utterances):
            raise ValueError("too long")
        return [(Segment(hypothesis.text, 0, 1, 1),) for hypothesis in hypotheses]


def test_an_alignment_that_fails_fails_alone(v2: SpeechEngine, utterances: list[Utterance]) -> None:
    fussy = SpeechEngine(v2._recogniser, _FussyAligner(), v2.card)
    # Their limits make them finish in one step, so that they are aligned together.
    fussy.admit([(ticket, _with(utterance, max_new_tokens=3)) for ticket, utterance in enumerate(utterances[:4])])
    outcomes = _finish(fussy)
    assert isinstance(outcomes[2], EngineError)
    assert "too long" in str(outcomes[2])
    assert all(isinstance(outcomes[ticket], Hypothesis) for ticket in (0, 1, 3))


def test_warm_up_leaves_nothing_behind(engine: SpeechEngine) -> None:
    engine.warm_up()
    assert engine.active == 0


def test_bfloat16(bundle_path: Path, utterances: list[Utterance]) -> None:
    rough = load_engine(str(bundle_path), device="cpu", dtype="bfloat16")
    for hypothesis in _decoded(rough, utterances):
        assert all(math.isfinite(logprob) for logprob in hypothesis.logprobs)


def test_no_gradients_and_no_dropout(engine: SpeechEngine, utterances: list[Utterance]) -> None:
    engine.admit([(0, utterances[0])])
    assert not engine._admitted[0].cohort._logits.requires_grad
    assert not engine._recogniser._model.training
    _finish(engine)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_writes_the_same(bundle_path: Path, v2: SpeechEngine, utterances: list[Utterance]) -> None:
    gpu = load_engine(str(bundle_path), device="cuda", dtype="float32")
    assert [h.tokens for h in _decoded(gpu, utterances)] == [h.tokens for h in _decoded(v2, utterances)]
