"""The engine: utterances in, Hypotheses out. One device, one owner, no threads, no clocks.

`Engine` is the interface that the service drives; `SpeechEngine` and `models.fake.FakeEngine` implement it.
"""

from typing import Protocol

from models.errors import EngineError
from models.types import Hypothesis, ModelCard, Utterance


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
