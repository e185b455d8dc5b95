"""Greedy decoding: utterances in, Hypotheses out as they finish.

`Recogniser.start` encodes a batch once and gives a `Cohort`; every `Cohort.step` writes one more token of each of
its utterances. Those that are finished leave at once, so nobody waits for the slowest of a batch. Results do not
depend on what else is in the batch: all lengths and limits are an utterance's own.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.canary.decoder import DecoderCache, TransformerDecoder
from models.canary.model import CanaryModel
from models.canary.prompt import END_OF_TEXT, PAD, prompt_ids
from models.errors import EngineError
from models.tokenizer import Tokenizer
from models.types import SAMPLE_RATE, Hypothesis, Utterance

# NeMo pads shorter clips to this with zeros on both sides: Canary was trained on none that are shorter.
_MIN_SAMPLES = SAMPLE_RATE


class Recogniser:
    """A Canary with its tokenizer.

    Attributes:
        tokenizer: Its tokenizer.
        frame_s: Duration of one encoder state in seconds.
    """

    def __init__(self, model: CanaryModel, tokenizer: Tokenizer, generation_delta: int = -1) -> None:
        """Holds a model that is in evaluation mode.

        Args:
            model: The network, on its device.
            tokenizer: Its tokenizer.
            generation_delta: Prompt and text have at most this many tokens more than the clip has encoder states;
                -1 for as many as the decoder has positions. NeMo's ``max_generation_delta``.
        """
        self.tokenizer = tokenizer
        self.frame_s = model.config.frame_s
        self._model = model
        self._device = model.decoder.head.weight.device
        self._delta = generation_delta
        # Half of the positions are left for the answer.
        self._max_context = model.config.decoder.max_length // 2

    @torch.inference_mode()
    def start(self, utterances: Sequence[Utterance]) -> "Cohort":
        """Encodes utterances together and runs the decoder over their prompts.

        Raises:
            LanguageError: The model has no token for a language.
        """
        prompts = [prompt_ids(self.tokenizer, utterance.options, self._max_context) for utterance in utterances]
        samples, num_samples = _padded([utterance.chunk.audio.samples for utterance in utterances])
        states, num_states = self._model.encode(samples.to(self._device), num_samples.to(self._device))
        rows = [
            _Row(index, self._limit(utterance, prompt, length))
            for index, (utterance, prompt, length) in enumerate(
                zip(utterances, prompts, num_states.tolist(), strict=True)
            )
        ]
        capacity = max(len(prompt) + row.limit for prompt, row in zip(prompts, rows, strict=True))
        decoder = self._model.decoder
        cache = DecoderCache(decoder.project(states), num_states, capacity)
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
        num_tokens = torch.tensor([len(prompt) for prompt in prompts])
        logits = decoder.step(tokens.to(self._device), num_tokens.to(self._device), cache)
        return Cohort(decoder, self.tokenizer, cache, logits, rows)

    def _limit(self, utterance: Utterance, prompt: list[int], num_states: int) -> int:
        """How many tokens may be written, end of text included; as NeMo's ``GreedySequenceGenerator`` counts.

        NeMo takes the length of the longest clip of the batch, which makes a text depend on its neighbours, and lets
        context eat into the answer.
        """
        limit = self._model.config.decoder.max_length - len(prompt)
        if self._delta >= 0:
            plain = prompt_ids(self.tokenizer, utterance.options, max_context=0)
            limit = min(limit, num_states + self._delta - len(plain))
        if utterance.options.max_new_tokens is not None:
            limit = min(limit, utterance.options.max_new_tokens)
        return max(limit, 1)


@dataclass(slots=True)
class _Row:
    """An utterance that is being decoded.

    Attributes:
        index: Its place among those that were started together.
        limit: Tokens it may have.
        tokens: Written so far, with the log-probability of each.
    """

    index: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    no_speech_prob: float = 0.0


class Cohort:
    """Utterances that were started together and are not finished."""

    def __init__(
        self, decoder: TransformerDecoder, tokenizer: Tokenizer, cache: DecoderCache, logits: Tensor, rows: list[_Row]
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._end = tokenizer.special[END_OF_TEXT]
        self._cache = cache
        self._logits = logits  # of each row's next token, shape (B, vocab_size)
        self._rows = rows

    @property
    def indices(self) -> list[int]:
        """Places, among those started together, of the utterances that are not finished."""
        return [row.index for row in self._rows]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Hypothesis | EngineError]]:
        """Writes one token of every utterance; returns those that are finished with their places.

        An utterance is an `EngineError` if its scores are not numbers.
        """
        logprobs = torch.log_softmax(self._logits.float(), dim=-1)
        tokens = self._logits.argmax(dim=-1)  # (B,)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        ends = logprobs[:, self._end]
        finished: list[tuple[int, Hypothesis | EngineError]] = []
        kept: list[int] = []
        steps = zip(self._rows, tokens.tolist(), chosen.tolist(), ends.tolist(), strict=True)
        for place, (row, token, logprob, end) in enumerate(steps):
            outcome = self._advance(row, token, logprob, end)
            if outcome is None:
                kept.append(place)
            else:
                finished.append((row.index, outcome))
        self._keep(kept)
        if kept:
            one = torch.ones(len(kept), dtype=torch.long, device=tokens.device)
            self._logits = self._decoder.step(tokens[kept, None], one, self._cache)
        return finished

    def drop(self, indices: Set[int]) -> None:
        """Forgets utterances by their places."""
        self._keep([place for place, row in enumerate(self._rows) if row.index not in indices])

    def _advance(self, row: _Row, token: int, logprob: float, end: float) -> Hypothesis | EngineError | None:
        """Adds a token to a row; None if it goes on."""
        if not math.isfinite(logprob):
            return EngineError("the model's scores for this audio are not numbers")
        if not row.tokens:
            row.no_speech_prob = math.exp(end)
        if token != self._end:
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if len(row.tokens) < row.limit:
                return None
        return self._hypothesis(row)

    def _hypothesis(self, row: _Row) -> Hypothesis:
        tokens, pad = row.tokens, self._tokenizer.special.get(PAD)
        while tokens and tokens[-1] == pad:  # NeMo strips these too
            tokens.pop()
        text = self._tokenizer.decode(tokens)
        return Hypothesis(text, tuple(tokens), tuple(row.logprobs[: len(tokens)]), (), row.no_speech_prob)

    def _keep(self, places: list[int]) -> None:
        if len(places) < len(self._rows):
            self._rows = [self._rows[place] for place in places]
            kept = torch.tensor(places, dtype=torch.long, device=self._logits.device)
            self._logits = self._logits[kept]
            self._cache.keep(kept)


def _padded(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Waveforms, zero-padded to the longest and each to `_MIN_SAMPLES`, shape (B, N), and their lengths, shape (B,)."""
    waves = [torch.from_numpy(_long_enough(np.nan_to_num(clip, posinf=0.0, neginf=0.0))) for clip in clips]
    return nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


def _long_enough(samples: np.ndarray) -> np.ndarray:
    lacking = max(0, _MIN_SAMPLES - len(samples))
    return np.pad(samples, (lacking // 2, lacking - lacking // 2))
