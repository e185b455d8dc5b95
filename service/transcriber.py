"""One request from top to bottom: the path of a media file in, a `Transcript` out."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from models.audio.decode import decode_file
from models.audio.merge import merge
from models.audio.split import split
from models.errors import LanguageError
from models.languages import LANGUAGES, parse_language
from models.types import Chunk, DecodingOptions, ModelCard, Transcript, Utterance
from service.errors import LanguageRequiredError, RequestError, UnsupportedError
from service.scheduler import Scheduler
from service.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants to have done with a file.

    Attributes:
        language: Language of the speech, as the caller wrote it; None if they did not say.
        target_language: Language of the text, as the caller wrote it; None for that of the speech.
        timestamps: Whether segments and words need times.
        context: Text that came before, to bias the wording.
    """

    language: str | None = None
    target_language: str | None = None
    timestamps: bool = True
    context: str = ""


class Transcriber:
    """Turns files into Transcripts with the engine behind a `Scheduler`.

    Args:
        scheduler: Must be started; requests before it is ready are refused.
        settings: Limits and defaults.
    """

    def __init__(self, scheduler: Scheduler, settings: Settings) -> None:
        self.scheduler = scheduler
        self.settings = settings
        # Its own pool, and bounded: each decoded file is held in memory until it is admitted or refused.
        self._decoders = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="decode")

    async def transcribe(self, path: Path, order: Order) -> Transcript:
        """Works through one file; cancelling this frees what the request holds.

        Raises:
            LanguageError: The model does not do that language or pair.
            LanguageRequiredError: Nobody said what is spoken.
            UnsupportedError: Times were asked of a model without an aligner.
            AudioError: The file is not usable audio, or too long.
            OverloadedError: The audio does not fit in the queue.
            NotReadyError, StoppingError, EngineDeadError: See `Scheduler.submit`.
            EngineError: The engine failed on this audio.
        """
        card = self.scheduler.card
        options = choose_options(card, order, self.settings.default_language)

        began = time.monotonic()
        duration, chunks = await self._in_pool(lambda: self._read(path, card.max_chunk))
        decoded = time.monotonic()

        answer = await settled(self.scheduler.submit([Utterance(chunk, options) for chunk in chunks]))
        text, segments = merge(list(answer.hypotheses))
        return Transcript(
            text=text,
            segments=segments,
            source_lang=options.source_lang,
            target_lang=options.target_lang,
            duration=duration,
            model=card.id,
            timings={
                "decode": decoded - began,
                "queue": answer.queue_seconds,
                "inference": answer.inference_seconds,
            },
        )

    def close(self) -> None:
        """Ends the decoding pool; what is being decoded ends by itself, within its time limit."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _read(self, path: Path, max_chunk: float) -> tuple[float, list[Chunk]]:
        audio = decode_file(
            path,
            max_duration=self.settings.max_audio_seconds,
            timeout=self.settings.decode_timeout_seconds,
        )
        return audio.duration, split(audio, max_chunk)

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await settled(self._decoders.submit(work))


async def settled(future: Future[T]) -> T:
    """Waits for a future of another thread; being cancelled cancels it."""
    return await asyncio.wrap_future(future)


def choose_options(card: ModelCard, order: Order, default_language: str | None) -> DecodingOptions:
    """Checks an order against what the model can do.

    The language of the speech is what the caller says, or the only one that the model knows, or the default. It is
    never guessed: a wrong one makes the model translate, silently.

    Raises:
        LanguageError: The model does not do that language or pair.
        LanguageRequiredError: Nobody said what is spoken.
        UnsupportedError: Times were asked of a model without an aligner.
    """
    if order.timestamps and not card.has_aligner:
        raise UnsupportedError(
            f"{card.id} is served without its aligner: use response_format json or text",
            param="response_format",
            code="timestamps_unavailable",
        )
    source = _source_language(card, order, default_language)
    target = _target_language(order, source)
    if source == target and source not in card.transcribes:
        raise LanguageError(f"{card.id} does not transcribe {LANGUAGES[source]}; it does {_names(card.transcribes)}")
    if source != target and (source, target) not in card.translates:
        targets = _names({to for source_, to in card.translates if source_ == source})
        raise LanguageError(
            f"{card.id} does not translate {LANGUAGES[source]} to {LANGUAGES[target]}; "
            f"from {LANGUAGES[source]} it translates to {targets or 'nothing'}"
        )
    return DecodingOptions(source, target, timestamps=order.timestamps, context=order.context)


def _source_language(card: ModelCard, order: Order, default: str | None) -> str:
    if order.language:
        return parse_language(order.language)
    if len(card.transcribes) == 1:
        return next(iter(card.transcribes))
    if default:
        return default
    raise LanguageRequiredError(
        f"{card.id} must be told what is spoken: set language to one of {', '.join(sorted(card.transcribes))}"
    )


def _target_language(order: Order, source: str) -> str:
    if not order.target_language:
        return source
    try:
        return parse_language(order.target_language)
    except LanguageError as error:
        raise RequestError(str(error), param="target_language", code="unsupported_language") from error


def _names(codes: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(LANGUAGES[code] for code in codes))
