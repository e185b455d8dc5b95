"""Utterances and what the recogniser wrote for them in, timed segments and words out.

Recognition: words by the best path through the CTC model's emissions, segments by CTC segmentation. Translation: the
words were never said, so there are no word times, and a segment is the whole chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.alignment.columns import Speller, Spelling, gather, spell
from models.alignment.ctc import CtcModel
from models.alignment.ctc_segments import ScoredSpan, confidence, score_segments
from models.alignment.segments import cut_long, sentence_spans
from models.alignment.tokens import Decoder, share_tokens
from models.alignment.viterbi import align_tokens, frame_edges, frames_needed, spread_words, time_words
from models.types import Hypothesis, Segment, Utterance, Word


class Aligner:
    """Times texts with a CTC model, on the device and in the precision of the model."""

    def __init__(self, model: CtcModel, tokenizer: Speller, recogniser: Decoder | None = None) -> None:
        """Nothing is computed yet.

        Args:
            model: The auxiliary CTC model.
            tokenizer: The CTC model's own.
            recogniser: The tokenizer that the hypotheses' token ids are of; by default the same.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._recogniser = recogniser if recogniser is not None else tokenizer

    def align(self, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis]) -> list[tuple[Segment, ...]]:
        """Times texts; all that need it share one pass of the model.

        Segments and their words are in order, do not overlap, and lie within their chunk; times count from the start of
        the whole audio. A text with more tokens than its clip has frames is spread over the clip with confidence 0.

        Args:
            utterances: What was heard.
            hypotheses: What was written, one for each.

        Returns:
            The segments of each, in the same order; none where there is no text or no timestamps were asked for.

        Raises:
            ValueError: The two are not equally many.
        """
        pairs = list(zip(utterances, hypotheses, strict=True))
        results: list[tuple[Segment, ...]] = [() for _ in pairs]
        spoken = []
        for index, (utterance, hypothesis) in enumerate(pairs):
            if not utterance.options.timestamps or not hypothesis.text.split():
                continue
            if utterance.options.is_translation:
                results[index] = (_whole_chunk(utterance, hypothesis),)
            else:
                spoken.append(index)
        clips = self._emit([utterances[index] for index in spoken], [hypotheses[index] for index in spoken])
        for index, clip in zip(spoken, clips, strict=True):
            results[index] = self._segments(clip, *pairs[index])
        return results

    @torch.inference_mode()
    def _emit(self, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis]) -> "list[_Clip]":
        """One pass of the model over all utterances."""
        if not utterances:
            return []
        vocab_size = self._model.config.vocab_size
        texts = [hypothesis.text.split() for hypothesis in hypotheses]
        spellings = [
            spell(words, utterance.options.target_lang, self._tokenizer, vocab_size)
            for words, utterance in zip(texts, utterances, strict=True)
        ]
        lengths = [len(utterance.chunk.audio.samples) for utterance in utterances]
        samples = np.zeros((len(utterances), max(lengths)), dtype=np.float32)  # (B, N)
        for row, utterance in zip(samples, utterances, strict=True):
            row[: len(utterance.chunk.audio.samples)] = utterance.chunk.audio.samples
        device = self._model.head.weight.device
        log_probs, num_frames = self._model(torch.from_numpy(samples).to(device), torch.tensor(lengths, device=device))
        emissions = gather(log_probs, num_frames, self._model.blank, spellings)
        return [_Clip(*clip) for clip in zip(texts, spellings, emissions, strict=True)]

    def _segments(self, clip: "_Clip", utterance: Utterance, hypothesis: Hypothesis) -> tuple[Segment, ...]:
        """Everything behind the model, for one utterance."""
        frame_s = self._model.config.frame_s
        offset, duration = utterance.chunk.offset, utterance.duration
        words, timed = _word_times(clip, frame_s, offset, duration)
        spans = [
            (begin + first, begin + last)
            for begin, end in sentence_spans(clip.words, utterance.options.target_lang)
            for first, last in cut_long(words[begin:end])
        ]
        groups = [words[begin:end] for begin, end in spans]
        scored = None
        if timed:
            columns = [[c for word in clip.spelling.words[begin:end] for c in word] for begin, end in spans]
            scored = score_segments(clip.log_probs, columns, frame_s)
        bounds = reconcile(groups, scored, offset, offset + duration)
        texts = [" ".join(word.text for word in group) for group in groups]
        shares = share_tokens(texts, hypothesis, self._recogniser)
        return tuple(
            Segment(
                text,
                start,
                end,
                _confidence(scored[i] if scored else None, group),
                words=group,
                tokens=share.tokens,
                avg_logprob=share.avg_logprob,
                no_speech_prob=hypothesis.no_speech_prob,
            )
            for i, (text, group, (start, end), share) in enumerate(zip(texts, groups, bounds, shares, strict=True))
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """What is known of an utterance behind the model: its words, their spelling, and emissions (frames, columns)."""

    words: list[str]
    spelling: Spelling
    log_probs: NDArray[np.float32]


def _word_times(clip: _Clip, frame_s: float, offset: float, duration: float) -> tuple[tuple[Word, ...], bool]:
    """The words, and whether their times are heard (True) or only spread."""
    tokens = clip.spelling.tokens
    if frames_needed(tokens) > len(clip.log_probs):
        return spread_words(clip.words, offset, duration), False
    path = align_tokens(clip.log_probs, tokens)
    edges = frame_edges(len(clip.log_probs), frame_s, offset, duration)
    return time_words(clip.words, [len(word) for word in clip.spelling.words], path, edges), True


def _confidence(scored: ScoredSpan | None, words: Sequence[Word]) -> float:
    """Of a segment: its score; without one its least certain word's, as one wrong word drags a score down too."""
    if scored is None or not any(word.confidence for word in words):
        return min(word.confidence for word in words)
    return confidence(scored.score)


def reconcile(
    groups: Sequence[Sequence[Word]], scored: Sequence[ScoredSpan] | None, clip_start: float, clip_end: float
) -> list[tuple[float, float]]:
    """Start and end of segments, in seconds of the whole audio: as scored, but never against the words.

    A segment covers its words and does not reach into another's. In the pause between two segments the end of the
    first and the start of the second are as scored; where these cross, both are in the middle of the crossing.

    Args:
        groups: The words of each segment, timed, in order.
        scored: Spans within the clip; None to have the words alone decide.
        clip_start: Start of the clip.
        clip_end: End of the clip.
    """
    starts = [group[0].start for group in groups]
    ends = [group[-1].end for group in groups]
    if scored is None:
        return list(zip(starts, ends, strict=True))
    first = max(clip_start, min(starts[0], clip_start + scored[0].start))
    last = min(clip_end, max(ends[-1], clip_start + scored[-1].end))
    cuts = [first]
    for i in range(len(groups) - 1):
        low, high = ends[i], starts[i + 1]
        end = min(max(clip_start + scored[i].end, low), high)
        start = min(max(clip_start + scored[i + 1].start, low), high)
        cuts += [end, start] if end <= start else [(end + start) / 2] * 2
    cuts.append(last)
    return list(zip(cuts[::2], cuts[1::2], strict=True))


def _whole_chunk(utterance: Utterance, hypothesis: Hypothesis) -> Segment:
    """A translation as one segment; its confidence is the mean probability that the decoder gave its tokens."""
    logprobs = np.minimum(hypothesis.logprobs, 0.0)
    return Segment(
        " ".join(hypothesis.text.split()),
        start=utterance.chunk.offset,
        end=utterance.chunk.offset + utterance.duration,
        confidence=float(np.exp(logprobs).mean()) if len(logprobs) else 0.0,
        tokens=hypothesis.tokens,
        avg_logprob=float(logprobs.mean()) if len(logprobs) else 0.0,
        no_speech_prob=hypothesis.no_speech_prob,
    )
