"""The values that flow through Aviary, in the order in which they appear.

    bytes -> Audio -> Chunk -> Utterance -> Hypothesis -> Word -> Segment -> Transcript -> bytes

All are frozen. Times are float seconds called ``start``, ``end``, ``offset`` and ``duration``.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of every `Audio`."""


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono audio.

    Attributes:
        samples: float32 in [-1, 1] at `SAMPLE_RATE`, shape (N,).
    """

    samples: NDArray[np.float32]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A slice of one `Audio`, short enough for the model.

    Attributes:
        audio: The slice itself.
        offset: Where it begins in the whole, in seconds.
    """

    audio: Audio
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """What is asked of the model for one utterance.

    Attributes:
        source_lang: ISO 639-1 code of the speech.
        target_lang: ISO 639-1 code of the text: the same to transcribe, another to translate.
        pnc: Whether to write punctuation and capitals.
        timestamps: Whether words and segments need times. Off saves the alignment.
        context: Text that came before, to bias the wording.
        max_new_tokens: Cap on the tokens decoded; None for the model's own limit.
    """

    source_lang: str
    target_lang: str
    pnc: bool = True
    timestamps: bool = True
    context: str = ""
    max_new_tokens: int | None = None

    @property
    def is_translation(self) -> bool:
        """Whether the text is in another language than the speech."""
        return self.source_lang != self.target_lang

    @property
    def task(self) -> str:
        """Either "transcribe" or "translate"."""
        return "translate" if self.is_translation else "transcribe"


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """What the queue carries: a chunk and what to do with it."""

    chunk: Chunk
    options: DecodingOptions

    @property
    def duration(self) -> float:
        """Length of the chunk in seconds."""
        return self.chunk.audio.duration


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its times.

    Attributes:
        text: The word with the punctuation attached to it, no spaces.
        start: Beginning in seconds from the start of the whole audio.
        end: End in seconds; not before ``start``.
        confidence: 0 to 1, how well the audio supports the word.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or part of one, with its times.

    Attributes:
        text: The text, its words joined by spaces.
        start: Beginning in seconds from the start of the whole audio.
        end: End in seconds.
        confidence: 0 to 1, how well the audio supports the text.
        words: The timed words; empty for translations, whose words have no honest times.
        tokens: Token ids of the text.
        avg_logprob: Mean log-probability that the decoder gave the tokens.
        no_speech_prob: Probability that the decoder would have written nothing, for the chunk it is in.
    """

    text: str
    start: float
    end: float
    confidence: float
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the engine returns for one utterance.

    Attributes:
        text: The decoded text, stripped.
        tokens: Token ids without prompt and end of text.
        logprobs: Log-probability of each token, in the order of ``tokens``.
        segments: Timed segments, relative to the whole audio (the chunk's offset is added);
            empty if the text is empty or no timestamps were asked for.
        no_speech_prob: Probability that the first token is the end of text.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    segments: tuple[Segment, ...] = ()
    no_speech_prob: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer to a request: one audio file, one text.

    Attributes:
        text: The whole text.
        segments: In order; their texts joined by spaces are the text.
        source_lang: Language of the speech.
        target_lang: Language of the text.
        duration: Length of the audio in seconds.
        model: Id of the model that made it.
        timings: Seconds spent by stage ("decode", "queue", "inference").
    """

    text: str
    segments: tuple[Segment, ...]
    source_lang: str
    target_lang: str
    duration: float
    model: str
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Either "transcribe" or "translate"."""
        return "translate" if self.source_lang != self.target_lang else "transcribe"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a loaded model can do; admission checks requests against it.

    Attributes:
        id: The name it is served under.
        transcribes: Languages of speech it writes down.
        translates: Pairs (source, target) it translates.
        max_chunk: Longest chunk it takes, in seconds.
        has_aligner: Whether it can time its text.
        owner: Who made it, for ``GET /v1/models``.
    """

    id: str
    transcribes: frozenset[str]
    translates: frozenset[tuple[str, str]]
    max_chunk: float
    has_aligner: bool
    owner: str = "nvidia"
