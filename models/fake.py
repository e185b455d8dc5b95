"""A stand-in for a speech model: utterances in, exact and predictable Hypotheses out. No weights, no torch.

It ships with the product, so that HTTP tests, image checks and users' own tests drive the whole service in
seconds (``aviary serve --model fake``). It hears no words, only loudness: see `FakeEngine`.
"""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.errors import EngineError
from models.languages import LANGUAGES
from models.types import SAMPLE_RATE, Hypothesis, ModelCard, Segment, Utterance, Word

_ALPHABET: Final = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec "
    "romeo sierra tango uniform victor whiskey xray yankee zulu"
)

WORDS: Final = tuple(_ALPHABET.split())
"""The vocabulary; a token id is an index into it."""

SLOT_SECONDS: Final = 0.5
"""Every slot of the whole audio that is loud enough is one word."""

SENTENCE_SLOTS: Final = 6
"""A sentence begins at every slot whose index is a multiple of this."""

THRESHOLD: Final = 0.01
"""Root mean square above which a slot is speech (-40 dB of full scale)."""

LOGPROB: Final = -0.125
"""Log-probability of every token; a power of two, so that means of it are exact."""

CONFIDENCE: Final = 0.875
"""Confidence of every word and segment."""


class OutOfMemoryError(RuntimeError):
    """What torch raises when a device is full: the service knows it by its name, for it imports no torch."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What a `FakeEngine` does wrong on purpose.

    Attributes:
        poisoned: Utterances that `FakeEngine.step` answers with an `EngineError`.
        inadmissible: Utterances that make `FakeEngine.admit` raise a RuntimeError for their whole batch.
        max_padded_seconds: Longest x count above which `FakeEngine.admit` runs out of memory.
        max_active: Active utterances above which `FakeEngine.step` runs out of memory.
        warm_up_error: Raised by `FakeEngine.warm_up`.
        step_error: Raised by every `FakeEngine.step`.
        cancel_error: Raised by every `FakeEngine.cancel`: an engine that cannot even forget.
        gate: Steps wait until it is set: an engine that hangs.
        warm_up_gate: Warm-up waits until it is set: a model that loads slowly.
    """

    poisoned: Callable[[Utterance], bool] = lambda _: False
    inadmissible: Callable[[Utterance], bool] = lambda _: False
    max_padded_seconds: float | None = None
    max_active: int | None = None
    warm_up_error: BaseException | None = None
    step_error: BaseException | None = None
    cancel_error: BaseException | None = None
    gate: threading.Event | None = None
    warm_up_gate: threading.Event | None = None


@dataclass(slots=True)
class _Row:
    """An active utterance: what it will say and how much of it is said."""

    utterance: Utterance
    slots: list[int]
    said: int = 0


def fake_card(model_id: str = "fake") -> ModelCard:
    """The card of a model that does what Canary-1B-v2 does: 25 languages, English to and from the other 24."""
    others = [code for code in LANGUAGES if code != "en"]
    return ModelCard(
        id=model_id,
        transcribes=frozenset(LANGUAGES),
        translates=frozenset([("en", code) for code in others] + [(code, "en") for code in others]),
        max_chunk=40.0,
        has_aligner=True,
        owner="aviary",
    )


class FakeEngine:
    """Implements `models.engine.Engine` without a model.

    The whole audio is cut into slots of half a second. A slot that is loud gives the word of `WORDS` at its index,
    modulo their number; a quiet one gives nothing. Positions count from the start of the whole audio
    (``chunk.offset``), so the text does not depend on how the audio was split. Sentences begin and end at fixed
    positions. A translation to German says "alpha_de" instead of "alpha", and its segments have no words.
    Like a decoder, it takes a step for each word and one more to find the end.

    Attributes:
        batches: The utterances of every successful `admit`, in order.
        cancelled: Tickets that were active when they were cancelled.
        steps: Number of steps made.
    """

    def __init__(self, card: ModelCard | None = None, faults: Faults | None = None) -> None:
        self._card = card or fake_card()
        self._faults = faults or Faults()
        self._rows: dict[int, _Row] = {}
        self.batches: list[tuple[Utterance, ...]] = []
        self.cancelled: set[int] = set()
        self.steps = 0

    @property
    def card(self) -> ModelCard:
        """What the model can do."""
        return self._card

    @property
    def active(self) -> int:
        """Utterances admitted and not finished."""
        return len(self._rows)

    def warm_up(self) -> None:
        """Does nothing, unless it was told to be slow or to fail."""
        if self._faults.warm_up_gate is not None:
            self._faults.warm_up_gate.wait()
        if self._faults.warm_up_error is not None:
            raise self._faults.warm_up_error

    def admit(self, batch: list[tuple[int, Utterance]]) -> None:
        """Listens to the utterances; see `models.engine.Engine.admit`.

        Raises:
            EngineError: A ticket is taken, or a chunk is longer than the card allows.
            OutOfMemoryError: The batch is larger than `Faults.max_padded_seconds`.
            RuntimeError: An utterance is inadmissible.
        """
        utterances = [utterance for _, utterance in batch]
        tickets = {ticket for ticket, _ in batch}
        if len(tickets) < len(batch) or tickets & self._rows.keys():
            raise EngineError("a ticket was used twice")
        longest = max((utterance.duration for utterance in utterances), default=0.0)
        if longest > self._card.max_chunk:
            raise EngineError(f"a chunk of {longest:.2f} s is longer than {self._card.max_chunk:g} s")
        limit = self._faults.max_padded_seconds
        if limit is not None and longest * len(batch) > limit:
            raise OutOfMemoryError(f"{longest * len(batch):g} padded seconds do not fit in {limit:g}")
        if any(map(self._faults.inadmissible, utterances)):
            raise RuntimeError("an utterance is inadmissible")
        self._rows.update({ticket: _Row(utterance, loud_slots(utterance)) for ticket, utterance in batch})
        self.batches.append(tuple(utterances))

    def step(self) -> list[tuple[int, Hypothesis | EngineError]]:
        """Says one more word of every active utterance; returns those that finished."""
        if self._faults.gate is not None:
            self._faults.gate.wait()
        if self._faults.step_error is not None:
            raise self._faults.step_error
        if self._faults.max_active is not None and len(self._rows) > self._faults.max_active:
            raise OutOfMemoryError(f"{len(self._rows)} utterances are more than {self._faults.max_active}")
        self.steps += 1
        finished: list[tuple[int, Hypothesis | EngineError]] = []
        for ticket, row in list(self._rows.items()):
            cap = row.utterance.options.max_new_tokens
            end_found = row.said == len(row.slots)
            row.said += not end_found
            if self._faults.poisoned(row.utterance):
                finished.append((ticket, EngineError("the fake engine was told to fail on this utterance")))
            elif end_found or (cap is not None and row.said >= cap):
                finished.append((ticket, _hypothesis(row)))
        for ticket, _ in finished:
            del self._rows[ticket]
        return finished

    def cancel(self, tickets: set[int]) -> None:
        """Forgets active utterances; unknown tickets are ignored."""
        if self._faults.cancel_error is not None:
            raise self._faults.cancel_error
        gone = tickets & self._rows.keys()
        self.cancelled |= gone
        for ticket in gone:
            del self._rows[ticket]


def loud_slots(utterance: Utterance) -> list[int]:
    """Indices, in the whole audio, of the loud slots whose middle lies in the chunk.

    By its middle, a slot that a chunk boundary cuts belongs to one side only.
    """
    samples, size = utterance.chunk.audio.samples, round(SLOT_SECONDS * SAMPLE_RATE)
    begin = round(utterance.chunk.offset * SAMPLE_RATE)
    # A slot's middle m lies in the chunk if begin <= m < begin + len(samples).
    first = -((size // 2 - begin) // size)
    last = (begin + len(samples) - size // 2 - 1) // size
    slots = []
    for slot in range(first, last + 1):
        inside = samples[max(slot * size - begin, 0) : (slot + 1) * size - begin]
        if float(np.sqrt(np.mean(np.square(inside, dtype=np.float64)))) > THRESHOLD:
            slots.append(slot)
    return slots


def _hypothesis(row: _Row) -> Hypothesis:
    slots = row.slots[: row.said]
    options = row.utterance.options
    text = " ".join(_spell(slot, row.utterance) for slot in slots)
    timed = options.timestamps
    return Hypothesis(
        text=text,
        tokens=tuple(_token(slot) for slot in slots),
        logprobs=(LOGPROB,) * len(slots),
        segments=tuple(_segment(run, row.utterance) for run in _sentences(slots)) if timed else (),
        no_speech_prob=0.0 if slots else 1.0,
    )


def _token(slot: int) -> int:
    return slot % len(WORDS)


def _spell(slot: int, utterance: Utterance) -> str:
    word = WORDS[_token(slot)]
    options = utterance.options
    if options.pnc and slot % SENTENCE_SLOTS == 0:
        word = word.capitalize()
    if options.is_translation:
        word = f"{word}_{options.target_lang}"
    if options.pnc and (slot + 1) % SENTENCE_SLOTS == 0:
        word += "."
    return word


def _sentences(slots: list[int]) -> list[list[int]]:
    """Groups slots by the sentence that they belong to."""
    return [list(group) for _, group in itertools.groupby(slots, key=lambda slot: slot // SENTENCE_SLOTS)]


def _segment(slots: list[int], utterance: Utterance) -> Segment:
    begin = utterance.chunk.offset
    end = begin + utterance.duration
    words = tuple(
        Word(
            text=_spell(slot, utterance),
            start=max(slot * SLOT_SECONDS, begin),
            end=min((slot + 1) * SLOT_SECONDS, end),
            confidence=CONFIDENCE,
        )
        for slot in slots
    )
    return Segment(
        text=" ".join(word.text for word in words),
        start=words[0].start,
        end=words[-1].end,
        confidence=CONFIDENCE,
        words=() if utterance.options.is_translation else words,
        tokens=tuple(_token(slot) for slot in slots),
        avg_logprob=LOGPROB,
    )
