"""What waits and what goes next: pure policy. Items in, batches out; no threads, the clock passed in.

The rules, each of which has a property test:

1. A request is admitted whole or refused whole, by the seconds of audio that wait.
2. A batch is started by the request whose turn it is, and requests take turns: no request waits for more than one
   batch of every other request, however long those are.
3. Similar lengths go together: short items do not pay for the padding of long ones.
4. A batch closes when the engine is idle, when it is full, or `QueuePolicy.max_wait` after its first item.
"""

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import OverloadedError

SMALL_SECONDS: Final = 5.0
"""Below this length padding costs less than another batch."""

SIMILAR: Final = 0.5
"""Items above `SMALL_SECONDS` share a batch if the shortest is at least this part of the longest."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The bounds.

    Attributes:
        max_batch_seconds: Padded seconds (longest x count) of one batch. An item that is longer goes alone.
        max_active_seconds: Seconds of audio inside the engine; a batch waits until a full one would fit.
        max_queue_seconds: Seconds of audio that may wait.
        max_wait: Seconds that a batch which is not full waits for company while the engine is busy.
    """

    max_batch_seconds: float = 160.0
    max_active_seconds: float = 640.0
    max_queue_seconds: float = 3600.0
    max_wait: float = 0.02


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance in the queue.

    Attributes:
        ticket: Its name, unique.
        request: The request that it belongs to.
        duration: Seconds of audio.
        arrived: When it came, by the caller's clock.
    """

    ticket: int
    request: int
    duration: float
    arrived: float


class Queue:
    """Items that wait, by request, in the order in which requests take their turns."""

    def __init__(self, policy: QueuePolicy) -> None:
        self._policy = policy
        # The request at the front starts the next batch, and then goes to the back.
        self._turns: OrderedDict[int, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    @property
    def seconds(self) -> float:
        """Seconds of audio that wait."""
        # A running sum would drift: floats do not add up.
        return sum(item.duration for item in self._items())

    def add(self, items: Sequence[Item]) -> None:
        """Takes all items of a request.

        A request that alone is longer than the bound is taken when nothing waits: it could never come in otherwise.

        Raises:
            OverloadedError: They do not fit; none was taken.
        """
        waiting, more = self.seconds, sum(item.duration for item in items)
        if waiting and waiting + more > self._policy.max_queue_seconds:
            raise OverloadedError(
                f"{waiting:.0f} s of audio are waiting; {more:.0f} s more would pass the limit "
                f"of {self._policy.max_queue_seconds:.0f} s"
            )
        for item in items:
            self._turns.setdefault(item.request, deque()).append(item)

    def restore(self, items: Sequence[Item]) -> None:
        """Takes back items that the engine could not hold; they were admitted before and go first."""
        for item in reversed(items):
            self._turns.setdefault(item.request, deque()).appendleft(item)
            self._turns.move_to_end(item.request, last=False)

    def remove(self, request: int) -> list[Item]:
        """Drops what waits for a request; returns it."""
        return list(self._turns.pop(request, ()))

    def next_batch(self, now: float, active_seconds: float) -> list[Item]:
        """Takes the next batch out of the queue, or nothing if it is not time to close one.

        Args:
            now: The time, by the clock of `Item.arrived`.
            active_seconds: Seconds of audio inside the engine; 0 means that it is idle.
        """
        if not self._turns:
            return []
        idle = active_seconds == 0
        if not idle and active_seconds + self._policy.max_batch_seconds > self._policy.max_active_seconds:
            return []
        batch, full = self._form()
        due = now - min(item.arrived for item in batch) >= self._policy.max_wait
        if not (idle or full or due):
            return []
        self._take(batch)
        return batch

    def _form(self) -> tuple[list[Item], bool]:
        """The batch that the next turn would start, and whether something similar did not fit any more."""
        batch: list[Item] = []
        shortest = longest = 0.0
        for item in self._round_robin():
            low = min(shortest, item.duration) if batch else item.duration
            high = max(longest, item.duration)
            if batch and high > SMALL_SECONDS and low < SIMILAR * high:
                continue
            if batch and high * (len(batch) + 1) > self._policy.max_batch_seconds:
                return batch, True
            batch.append(item)
            shortest, longest = low, high
        return batch, longest * (len(batch) + 1) > self._policy.max_batch_seconds

    def _take(self, batch: list[Item]) -> None:
        taken = {item.ticket for item in batch}
        first = batch[0].request
        for request in dict.fromkeys(item.request for item in batch):
            left = deque(item for item in self._turns[request] if item.ticket not in taken)
            if left:
                self._turns[request] = left
            else:
                del self._turns[request]
        if first in self._turns:
            self._turns.move_to_end(first)

    def _round_robin(self) -> Iterator[Item]:
        """The first item of every request in turn, then the second ones, and so on."""
        for layer in itertools.zip_longest(*self._turns.values()):
            yield from (item for item in layer if item is not None)

    def _items(self) -> Iterator[Item]:
        return itertools.chain.from_iterable(self._turns.values())
