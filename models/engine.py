"""The engine: utterances in, Hypotheses out. One device, one owner, no threads, no clocks.

`Engine` is the interface that the service drives; `SpeechEngine` and `models.fake.FakeEngine` implement it, and
`load_engine` builds a `SpeechEngine`. Importing this module imports no torch: loading an engine does.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models import registry
from models.errors import AviaryError, CheckpointError, DeviceError, EngineError, OptionError
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Hypothesis, ModelCard, Segment, Utterance

if TYPE_CHECKING:
    import torch

    from models.canary.decoding import Cohort, Recogniser
    from models.nemo_file import NemoFile
    from models.tokenizer import Tokenizer

_AUTO = "auto"
_DTYPES = ("float32", "bfloat16")
_WARM_UP_S = 2.0
_WARM_UP_TOKENS = 4


class Engine(Protocol):
    """A speech model on one device, owned by one thread.

    The owner calls `admit` with a few utterances, then `step` until everything has come out; it may admit more
    between steps. Tickets are chosen by the owner and come back unchanged.
    """

    @property
    def card(self) -> ModelCard:
        """What the model can do."""
        ...

    @property
    def active(self) -> int:
        """Utterances admitted and not finished."""
        ...

    def warm_up(self) -> None:
        """Runs once through every stage, so that the first request is as fast as the others."""
        ...

    def admit(self, batch: "list[tuple[int, Utterance]]") -> None:
        """Encodes utterances together and starts to decode them.

        Args:
            batch: Pairs of a ticket and an utterance. Tickets must be unique among those active.

        Raises:
            LanguageError: The model has no such language. Nothing was admitted.
            EngineError: Nothing was admitted.
            torch.OutOfMemoryError: (a RuntimeError) Nothing was admitted; a smaller batch may fit.
        """
        ...

    def step(self) -> "list[tuple[int, Hypothesis | EngineError]]":
        """Decodes one more token of every active utterance; returns those that finished, with their tickets."""
        ...

    def cancel(self, tickets: "set[int]") -> None:
        """Forgets active utterances whose callers are gone; unknown tickets are ignored."""
        ...


class SegmentAligner(Protocol):
    """What times the text; `models.alignment.aligner.Aligner` does."""

    def align(self, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis]) -> list[tuple[Segment, ...]]:
        """Timed segments of each hypothesis, relative to the whole audio."""
        ...


@dataclass(slots=True)
class _Admitted:
    """A cohort with the owner's tickets and utterances, by their places in it."""

    cohort: "Cohort"
    batch: list[tuple[int, Utterance]]

    @property
    def tickets(self) -> list[int]:
        """Tickets of what is not finished."""
        return [self.batch[index][0] for index in self.cohort.indices]


class SpeechEngine:
    """A Canary on one device, with its aligner if it has one.

    Every admitted batch is a cohort with its own cache; `step` advances all of them, and what is finished leaves at
    once. Whatever goes wrong in a step is an `EngineError` of the utterances it happened to, and the others go on:
    `step` itself does not raise.
    """

    def __init__(self, recogniser: "Recogniser", aligner: SegmentAligner | None, card: ModelCard) -> None:
        """Holds what `load_engine` has loaded; ``aligner`` is None for an engine without times."""
        self._recogniser = recogniser
        self._aligner = aligner
        self._card = card
        self._admitted: list[_Admitted] = []

    @property
    def card(self) -> ModelCard:
        """What the model can do."""
        return self._card

    @property
    def active(self) -> int:
        """Utterances admitted and not finished."""
        return sum(len(admitted.cohort.indices) for admitted in self._admitted)

    def warm_up(self) -> None:
        """Encodes, decodes and aligns a little noise.

        Raises:
            Exception: Whatever a stage raises: an engine that cannot do this cannot serve.
        """
        lang = min(self._card.transcribes)
        noise = np.random.default_rng(0).normal(0, 0.1, int(_WARM_UP_S * SAMPLE_RATE)).astype(np.float32)
        options = DecodingOptions(lang, lang, max_new_tokens=_WARM_UP_TOKENS)
        utterance = Utterance(Chunk(Audio(noise)), options)
        cohort = self._recogniser.start([utterance])
        while cohort.indices:
            cohort.step()
        if self._aligner is not None:
            token = self._recogniser.tokenizer.encode("a", lang)
            self._aligner.align([utterance], [Hypothesis("a", tuple(token), (0.0,) * len(token))])

    def admit(self, batch: list[tuple[int, Utterance]]) -> None:
        """Encodes utterances together and starts to decode them; see `Engine.admit`."""
        if not batch:
            return
        try:
            cohort = self._recogniser.start([utterance for _, utterance in batch])
        except RuntimeError as error:
            if isinstance(error, AviaryError) or _is_out_of_memory(error):
                raise
            raise EngineError(f"the audio could not be encoded: {error}") from error
        self._admitted.append(_Admitted(cohort, list(batch)))

    def step(self) -> list[tuple[int, Hypothesis | EngineError]]:
        """Decodes one more token of every active utterance; returns those that finished, with their tickets."""
        outcomes: list[tuple[int, Hypothesis | EngineError]] = []
        decoded: list[tuple[int, Utterance, Hypothesis]] = []
        for admitted in self._admitted:
            tickets = admitted.tickets
            try:
                finished = admitted.cohort.step()
            except Exception as error:  # noqa: BLE001 (any failure is that of this cohort alone)
                admitted.cohort.drop(set(admitted.cohort.indices))
                outcomes += [(ticket, _failure("decoding failed", error)) for ticket in tickets]
                continue
            for index, outcome in finished:
                ticket, utterance = admitted.batch[index]
                if isinstance(outcome, EngineError):
                    outcomes.append((ticket, outcome))
                else:
                    decoded.append((ticket, utterance, outcome))
        self._admitted = [admitted for admitted in self._admitted if admitted.cohort.indices]
        return outcomes + self._timed(decoded)

    def cancel(self, tickets: set[int]) -> None:
        """Forgets active utterances whose callers are gone; unknown tickets are ignored."""
        for admitted in self._admitted:
            admitted.cohort.drop({index for index, (ticket, _) in enumerate(admitted.batch) if ticket in tickets})
        self._admitted = [admitted for admitted in self._admitted if admitted.cohort.indices]

    def _timed(self, decoded: list[tuple[int, Utterance, Hypothesis]]) -> list[tuple[int, Hypothesis | EngineError]]:
        """Aligns what asked for times and has text, together; the rest stays as it is."""
        wanted = [item for item in decoded if self._aligner is not None and item[1].options.timestamps and item[2].text]
        outcomes: dict[int, Hypothesis | EngineError] = {ticket: hypothesis for ticket, _, hypothesis in decoded}
        try:
            outcomes |= self._aligned(wanted)
        except Exception:  # noqa: BLE001 (tried again one by one, so that only what fails by itself fails)
            for item in wanted:
                try:
                    outcomes |= self._aligned([item])
                except Exception as error:  # noqa: BLE001 (any failure is that of this utterance alone)
                    outcomes[item[0]] = _failure("the text could not be timed", error)
        return list(outcomes.items())

    def _aligned(self, items: list[tuple[int, Utterance, Hypothesis]]) -> dict[int, Hypothesis]:
        if not items or self._aligner is None:
            return {}
        segments = self._aligner.align([utterance for _, utterance, _ in items], [found for _, _, found in items])
        return {
            ticket: dataclasses.replace(hypothesis, segments=timed)
            for (ticket, _, hypothesis), timed in zip(items, segments, strict=True)
        }


def load_engine(
    model: str,
    *,
    device: str = _AUTO,
    dtype: str = _AUTO,
    sha256: str | None = None,
    timestamps: bool = True,
) -> SpeechEngine:
    """Loads a model.

    Args:
        model: A name that `models.registry` knows, or the path of a `.nemo` bundle.
        device: "cpu", "cuda", "cuda:1", or "auto" for a GPU where there is one.
        dtype: "float32", "bfloat16", or "auto" for bfloat16 on a GPU and float32 elsewhere.
        sha256: What the bundle must hash to; None to take any.
        timestamps: Whether to load the aligner, which times the text.

    Raises:
        UnknownModelError: There is no such model.
        CheckpointError: The bundle cannot be had, is broken, of another kind, or has no aligner and ``timestamps``.
        DeviceError: The device is not on this machine.
        OptionError: The device or precision is none that exists.
    """
    place, precision = _placement(device, dtype)
    from models.canary.checkpoint import load_canary
    from models.canary.decoding import Recogniser
    from models.nemo_file import NemoFile
    from models.tokenizer import load_tokenizer

    with NemoFile.open(registry.find(model), sha256) as bundle:
        config = bundle.config()
        tokenizer = load_tokenizer(config.get("tokenizer") or {}, bundle.read, str(bundle.path))
        delta = _generation_delta(config, str(bundle.path))
        canary = load_canary(bundle, tokenizer.size, place, precision)
        aligner = _load_aligner(bundle, tokenizer, place, precision) if timestamps else None
    card = registry.describe(model, config, tokenizer.languages, has_aligner=aligner is not None)
    return SpeechEngine(Recogniser(canary, tokenizer, delta), aligner, card)


def _load_aligner(
    bundle: "NemoFile", recogniser: "Tokenizer", device: "torch.device", dtype: "torch.dtype"
) -> SegmentAligner:
    """The aligner of a bundle; it spells with a tokenizer of its own."""
    from models.alignment.aligner import Aligner
    from models.alignment.checkpoint import ALIGNER_CONFIG, load_aligner_model
    from models.tokenizer import load_tokenizer

    model = load_aligner_model(bundle, device, dtype)
    section = bundle.config(ALIGNER_CONFIG).get("tokenizer") or {}
    own = load_tokenizer(section, bundle.read, f"{bundle.path}: {ALIGNER_CONFIG}", prompted=False)
    return Aligner(model, own, recogniser)


def _placement(device: str, dtype: str) -> "tuple[torch.device, torch.dtype]":
    """Device and precision; what is not there is refused, never replaced by something else."""
    import torch

    present = torch.cuda.is_available()
    if device == _AUTO:
        device = "cuda" if present else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"there is no kind of device {device!r}; use auto, cpu, cuda or cuda:N") from error
    if place.type not in ("cpu", "cuda"):
        raise OptionError(f"devices of type {place.type} are not supported; use auto, cpu, cuda or cuda:N")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{device}: this machine has {torch.cuda.device_count() or 'no'} CUDA devices that torch can use"
        )
    if dtype == _AUTO:
        dtype = "bfloat16" if place.type == "cuda" else "float32"
    if dtype not in _DTYPES:
        raise OptionError(f"there is no precision {dtype!r}; use auto, {' or '.join(_DTYPES)}")
    return place, getattr(torch, dtype)


def _generation_delta(config: dict[str, Any], source: str) -> int:
    """NeMo's limit on the length of a text, from the section of the strategy that the bundle decodes with."""
    decoding = config.get("decoding") or {}
    strategy = str(decoding.get("strategy", "greedy")).removesuffix("_batch")
    delta = (decoding.get(strategy) or {}).get("max_generation_delta", -1)
    if not isinstance(delta, int):
        raise CheckpointError(f"{source}: decoding.{strategy}.max_generation_delta is {delta!r}, not a number")
    return delta


def _failure(what: str, error: Exception) -> EngineError:
    """An `EngineError` with what caused it."""
    if isinstance(error, EngineError):
        return error
    failure = EngineError(f"{what}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _is_out_of_memory(error: RuntimeError) -> bool:
    # By its name, as the service knows it: this module imports no torch.
    return type(error).__name__ == "OutOfMemoryError"
