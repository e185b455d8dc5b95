"""The one thread that owns the engine: utterances in, futures out.

Everyone else talks to it through `Scheduler.submit`. What goes next is the business of `service.queue`; this module
is about the promise that every future is settled exactly once, whatever the engine does:

* an error on an utterance fails its request; the others go on
* an error of a batch halves it, until the guilty utterance is alone
* out of memory is the same, and what does not fit beside others waits until the engine is idle
* an engine that cannot be built, warmed up or told to forget ends the thread: all who wait fail at once, and
  ``on_death`` tells the process to end
"""

import enum
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.errors import AviaryError, EngineError
from models.types import Hypothesis, ModelCard, Utterance
from service.errors import EngineDeadError, NotReadyError, OverloadedError, StoppingError
from service.queue import Item, Queue, QueuePolicy

if TYPE_CHECKING:
    from models.engine import Engine  # Its module imports torch.

_log = logging.getLogger(__name__)

RETRY_LOADING_SECONDS: Final = 5.0
"""What ``Retry-After`` says while the model is being loaded."""

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
"""Bounds of ``Retry-After`` when too much waits."""

JOIN_SECONDS: Final = 5.0
"""How long `Scheduler.stop` waits for a thread that has nothing left to do; it may be stuck inside the engine."""


class Phase(enum.Enum):
    """Where the engine thread is in its life."""

    LOADING = "loading"
    WARMING_UP = "warming up"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the utterances of a request.

    Attributes:
        hypotheses: One per utterance, in their order.
        queue_seconds: From submission until the first utterance went to the engine.
        inference_seconds: From then until the last one came out.
    """

    hypotheses: tuple[Hypothesis, ...]
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Request:
    """Utterances that are answered together; tickets are its own."""

    number: int
    utterances: dict[int, Utterance]
    submitted: float
    future: Future[Answer] = field(default_factory=Future)
    results: dict[int, Hypothesis] = field(default_factory=dict)
    started: float | None = None

    def answer(self, now: float) -> Answer:
        started = now if self.started is None else self.started
        hypotheses = tuple(self.results[ticket] for ticket in self.utterances)
        return Answer(hypotheses, started - self.submitted, now - started)


class Scheduler:
    """Owns the engine thread and the queue before it.

    Args:
        engine_factory: Builds the engine; called in the engine thread, for it loads weights and may own a device.
        policy: The bounds of the queue.
        clock: Seconds that never go backwards.
        on_death: Called once, in the engine thread, if it ends by an error.
    """

    def __init__(
        self,
        engine_factory: "Callable[[], Engine]",
        policy: QueuePolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._engine_factory = engine_factory
        self._policy = policy
        self._clock = clock
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._numbers = itertools.count()

        # Guarded by `_wake`: all threads.
        self._wake = threading.Condition()
        self._phase = Phase.LOADING
        self._death: BaseException | None = None
        self._closing = False
        self._queue = Queue(policy)
        self._requests: dict[int, _Request] = {}
        self._owners: dict[int, _Request] = {}
        self._gone: set[int] = set()
        self._card: ModelCard | None = None
        self._busy_seconds = 0.0
        self._done_seconds = 0.0

        # The engine thread's own.
        self._active: dict[int, Item] = {}
        self._crowded = False  # The engine ran out of memory: nothing more until it is idle.

    # What others may call, from any thread.

    def start(self) -> None:
        """Starts the engine thread; returns before the engine is built."""
        self._thread.start()

    @property
    def phase(self) -> Phase:
        """Where the engine thread is in its life."""
        return self._phase

    @property
    def death(self) -> BaseException | None:
        """What ended the engine thread, if it died."""
        return self._death

    @property
    def card(self) -> ModelCard:
        """What the model can do.

        Raises:
            NotReadyError: It is not loaded yet.
            EngineDeadError: It never will be.
        """
        if self._card is None:
            raise self._refusal()
        return self._card

    @property
    def open_requests(self) -> int:
        """Requests submitted and not settled."""
        return len(self._requests)

    def wait_ready(self, timeout: float | None = None) -> ModelCard:
        """Blocks until the engine is warm.

        Raises:
            EngineDeadError: It died instead; the cause is attached.
            NotReadyError: The time is over.
        """
        with self._wake:
            self._wake.wait_for(lambda: self._phase not in (Phase.LOADING, Phase.WARMING_UP), timeout)
            if self._phase is not Phase.READY:
                raise self._refusal() from self._death
            return self.card

    def check_accepting(self) -> None:
        """Tells early, before an upload is read, that a request would be refused.

        Raises:
            NotReadyError: The model is being loaded.
            StoppingError: The service is going down.
            EngineDeadError: The engine thread died.
            OverloadedError: The queue is full.
        """
        with self._wake:
            if self._phase is not Phase.READY:
                raise self._refusal()
            waiting = self._queue.seconds
            if waiting >= self._policy.max_queue_seconds:
                message = f"{waiting:.0f} s of audio are waiting, which is the limit"
                raise OverloadedError(message, retry_after=self._retry_after(waiting))

    def submit(self, utterances: Sequence[Utterance]) -> Future[Answer]:
        """Queues the utterances of one request; cancelling the future frees everything that it holds.

        Raises:
            NotReadyError: The model is being loaded.
            StoppingError: The service is going down.
            EngineDeadError: The engine thread died.
            OverloadedError: They do not fit in the queue; none was taken.
        """
        with self._wake:
            if self._phase is not Phase.READY:
                raise self._refusal()
            now = self._clock()
            tickets = {next(self._numbers): utterance for utterance in utterances}
            request = _Request(next(self._numbers), tickets, now)
            if not tickets:
                request.future.set_result(Answer(()))
                return request.future
            try:
                self._queue.add([Item(t, request.number, u.duration, now) for t, u in tickets.items()])
            except OverloadedError as error:
                error.retry_after = self._retry_after(sum(u.duration for u in utterances))
                raise
            self._requests[request.number] = request
            self._owners.update(dict.fromkeys(tickets, request))
            self._wake.notify_all()
        request.future.add_done_callback(lambda future: self._release(request) if future.cancelled() else None)
        return request.future

    def stop(self, deadline: float) -> None:
        """Refuses what comes, lets what was accepted finish for ``deadline`` seconds, and fails the rest."""
        with self._wake:
            if self._phase is not Phase.DEAD:
                self._phase = Phase.STOPPING
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._requests, deadline)
            left = list(self._requests.values())
            self._closing = True
            self._wake.notify_all()
        for request in left:
            self._fail(request, StoppingError("the service is stopping", retry_after=MIN_RETRY_SECONDS))
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _refusal(self) -> NotReadyError | StoppingError | EngineDeadError:
        if self._phase is Phase.DEAD:
            return EngineDeadError("the engine died; the service is about to end")
        if self._phase is Phase.STOPPING:
            return StoppingError("the service is stopping", retry_after=MIN_RETRY_SECONDS)
        return NotReadyError(f"the model is {self._phase.value}", retry_after=RETRY_LOADING_SECONDS)

    def _retry_after(self, seconds: float) -> float:
        """When ``seconds`` of audio will have gone from the queue, at the speed measured so far."""
        speed = self._done_seconds / self._busy_seconds if self._done_seconds else float("inf")
        return min(max(seconds / speed, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    # Settling. A request is taken out of `_requests` exactly once, by whoever settles it.

    def _release(self, request: _Request) -> bool:
        """Forgets a request, whatever its state; False if somebody did before."""
        with self._wake:
            if self._requests.pop(request.number, None) is None:
                return False
            self._queue.remove(request.number)
            for ticket in request.utterances:
                del self._owners[ticket]
            # The engine thread frees their slots, if they have some.
            self._gone |= request.utterances.keys() - request.results.keys()
            self._wake.notify_all()
            return True

    def _fail(self, request: _Request, error: BaseException) -> None:
        if self._release(request) and request.future.set_running_or_notify_cancel():
            request.future.set_exception(error)

    def _finish(self, request: _Request) -> None:
        if self._release(request) and request.future.set_running_or_notify_cancel():
            request.future.set_result(request.answer(self._clock()))

    # What follows runs in the engine thread.

    def _run(self) -> None:
        try:
            engine = self._open()
            while self._turn(engine):
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            if not isinstance(error, AviaryError):
                _log.critical("the engine thread died", exc_info=error)
            self._die(error)

    def _open(self) -> "Engine":
        began = self._clock()
        engine = self._engine_factory()
        self._card = engine.card
        self._advance(Phase.WARMING_UP)
        engine.warm_up()
        self._advance(Phase.READY)
        _log.info("%s is ready after %.1f s", engine.card.id, self._clock() - began)
        return engine

    def _advance(self, phase: Phase) -> None:
        with self._wake:
            if self._phase is not Phase.STOPPING:
                self._phase = phase
            self._wake.notify_all()

    def _die(self, error: BaseException) -> None:
        with self._wake:
            self._phase = Phase.DEAD
            self._death = error
            left = list(self._requests.values())
            self._wake.notify_all()
        for request in left:
            self._fail(request, EngineDeadError("the engine died while it worked on this request"))
        if self._on_death is not None:
            self._on_death(error)

    def _turn(self, engine: "Engine") -> bool:
        """One round: forget, admit, step. Blocks while there is nothing to do; False at the end of the service."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._gone or self._active or len(self._queue))
            if self._closing:
                return False
            gone, self._gone = self._gone, set()
        began = self._clock()
        self._forget(engine, gone)
        self._crowded = self._crowded and bool(self._active)
        if not self._crowded:
            with self._wake:
                batch = self._queue.next_batch(began, sum(item.duration for item in self._active.values()))
            self._admit(engine, batch)
        if self._active:
            self._step(engine)
        with self._wake:
            self._busy_seconds += self._clock() - began
        return True

    def _forget(self, engine: "Engine", tickets: set[int]) -> None:
        """Frees the slots of those who are gone; most of them never had one."""
        held = tickets & self._active.keys()
        if held:
            engine.cancel(held)
        for ticket in held:
            del self._active[ticket]

    def _admit(self, engine: "Engine", items: list[Item]) -> None:
        with self._wake:
            now = self._clock()
            owners = {item.ticket: self._owners[item.ticket] for item in items if item.ticket in self._owners}
            for owner in owners.values():
                owner.started = now if owner.started is None else owner.started
        alive = [item for item in items if item.ticket in owners]
        if not alive:
            return
        try:
            engine.admit([(item.ticket, owners[item.ticket].utterances[item.ticket]) for item in alive])
        except Exception as error:  # noqa: BLE001 - any error settles the futures it touches
            _log.exception("a batch of %d was not admitted", len(alive))
            self._retry_admission(engine, alive, error)
        else:
            self._active.update({item.ticket: item for item in alive})

    def _retry_admission(self, engine: "Engine", items: list[Item], error: Exception) -> None:
        """Halves the batch: what is too large fits at last, and what is poisoned ends up alone."""
        if len(items) > 1:
            middle = len(items) // 2
            self._admit(engine, items[:middle])
            self._admit(engine, items[middle:])
        elif _is_out_of_memory(error) and self._active:
            self._restore(items)
        else:
            self._fail_items(items, error)

    def _step(self, engine: "Engine") -> None:
        try:
            finished = engine.step()
            for ticket, outcome in finished:
                self._settle(ticket, outcome)
            if self._active and not engine.active:
                raise EngineError("the engine lost utterances")
        except Exception as error:  # noqa: BLE001 - any error settles the futures it touches
            _log.exception("a step with %d utterances failed", len(self._active))
            self._retry_active(engine, error)

    def _retry_active(self, engine: "Engine", error: Exception) -> None:
        """After a failed step nothing inside the engine can be trusted: all of it starts again, or fails."""
        items = list(self._active.values())
        self._forget(engine, {item.ticket for item in items})
        if _is_out_of_memory(error) and len(items) > 1:
            middle = len(items) // 2
            self._restore(items[middle:])
            self._admit(engine, items[:middle])
        else:
            self._fail_items(items, error)

    def _restore(self, items: list[Item]) -> None:
        with self._wake:
            self._queue.restore([item for item in items if item.ticket in self._owners])
        self._crowded = True

    def _settle(self, ticket: int, outcome: Hypothesis | EngineError) -> None:
        item = self._active.pop(ticket)
        with self._wake:
            self._done_seconds += item.duration
            request = self._owners.get(ticket)
            if request is None:
                return
            if not isinstance(outcome, EngineError):
                request.results[ticket] = outcome
        if isinstance(outcome, EngineError):
            self._fail(request, outcome)
        elif len(request.results) == len(request.utterances):
            self._finish(request)

    def _fail_items(self, items: list[Item], error: Exception) -> None:
        """Fails the requests that own the items; who made a request learns only what was written for them."""
        with self._wake:
            owners = {self._owners[item.ticket] for item in items if item.ticket in self._owners}
        for request in owners:
            told = error if isinstance(error, AviaryError) else EngineError("the engine failed on this audio")
            if told is not error:
                told.__cause__ = error
            self._fail(request, told)


def _is_out_of_memory(error: Exception) -> bool:
    """Knows torch's error by its name, for the service never imports torch."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()
    )
