"""The policy of the queue: examples that a person can follow, and properties that hold for any load."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import OverloadedError
from service.queue import SIMILAR, SMALL_SECONDS, Item, Queue, QueuePolicy

POLICY = QueuePolicy(max_batch_seconds=60.0, max_active_seconds=180.0, max_queue_seconds=600.0, max_wait=0.02)


def fill(queue, requests, arrived=0.0):
    """Adds requests, each a list of durations; tickets are (request, index)."""
    for request, durations in enumerate(requests):
        queue.add([Item(request * 1000 + i, request, d, arrived) for i, d in enumerate(durations)])


def drain(queue, now=1.0):
    batches = []
    while batch := queue.next_batch(now, 0.0):
        batches.append(batch)
    return batches


def owners(batch):
    return [item.request for item in batch]


def test_an_idle_engine_takes_what_there_is():
    queue = Queue(POLICY)
    fill(queue, [[3.0]])
    assert owners(queue.next_batch(0.0, 0.0)) == [0]
    assert queue.next_batch(0.0, 0.0) == []


def test_a_busy_engine_waits_for_company():
    queue = Queue(POLICY)
    fill(queue, [[3.0], [3.0]])
    assert queue.next_batch(0.019, 10.0) == []
    assert owners(queue.next_batch(0.02, 10.0)) == [0, 1]


def test_a_full_batch_does_not_wait():
    queue = Queue(POLICY)
    fill(queue, [[20.0, 20.0], [20.0]])
    assert owners(queue.next_batch(0.0, 10.0)) == [0, 1, 0]


def test_a_batch_waits_until_a_full_one_fits():
    queue = Queue(POLICY)
    fill(queue, [[20.0]])
    assert queue.next_batch(9.0, 120.1) == []
    assert owners(queue.next_batch(9.0, 120.0)) == [0]


def test_requests_take_turns():
    queue = Queue(POLICY)
    fill(queue, [[20.0] * 4, [20.0] * 2, [20.0]])
    assert [owners(batch) for batch in drain(queue)] == [[0, 1, 2], [1, 0, 0], [0]]


def test_a_long_file_does_not_starve_a_short_one():
    queue = Queue(POLICY)
    fill(queue, [[30.0] * 15, [3.0]])
    assert [owners(batch) for batch in drain(queue)][:3] == [[0, 0], [1], [0, 0]]


def test_similar_lengths_go_together():
    queue = Queue(POLICY)
    fill(queue, [[20.0], [2.0], [18.0], [4.0]])
    assert [owners(batch) for batch in drain(queue)] == [[0, 2], [1, 3]]


def test_an_item_above_the_budget_goes_alone():
    queue = Queue(POLICY)
    fill(queue, [[90.0], [80.0]])
    assert [owners(batch) for batch in drain(queue)] == [[0], [1]]


def test_admission_is_whole_or_not_at_all():
    queue = Queue(POLICY)
    fill(queue, [[30.0] * 19])
    with pytest.raises(OverloadedError, match="570 s of audio are waiting"):
        queue.add([Item(1, 1, 16.0, 0.0), Item(2, 1, 15.0, 0.0)])
    assert len(queue) == 19
    queue.add([Item(1, 1, 15.0, 0.0), Item(2, 1, 15.0, 0.0)])
    assert queue.seconds == 600.0


def test_a_request_above_the_bound_comes_in_when_nothing_waits():
    queue = Queue(POLICY)
    fill(queue, [[30.0] * 30])
    assert queue.seconds == 900.0
    with pytest.raises(OverloadedError):
        queue.add([Item(1, 1, 0.1, 0.0)])


def test_what_is_restored_goes_first():
    queue = Queue(POLICY)
    fill(queue, [[20.0] * 4, [20.0]])
    batch = queue.next_batch(0.0, 0.0)
    queue.restore(batch)
    assert queue.next_batch(0.0, 0.0)[0] == batch[0]


def test_removed_requests_are_gone():
    queue = Queue(POLICY)
    fill(queue, [[20.0], [20.0]])
    assert owners(queue.remove(0)) == [0]
    assert queue.remove(0) == []
    assert owners(queue.next_batch(0.0, 0.0)) == [1]


durations = st.floats(min_value=0.05, max_value=40.0)
loads = st.lists(st.lists(durations, min_size=1, max_size=12), min_size=1, max_size=10)
unbounded = QueuePolicy(max_batch_seconds=60.0, max_active_seconds=180.0, max_queue_seconds=float("inf"), max_wait=0.02)


@given(loads)
def test_everything_comes_out_once(requests):
    queue = Queue(unbounded)
    fill(queue, requests)
    out = [item for batch in drain(queue) for item in batch]
    assert sorted(item.ticket for item in out) == sorted(
        request * 1000 + i for request, ds in enumerate(requests) for i in range(len(ds))
    )
    assert (len(queue), queue.seconds) == (0, 0)


@given(loads)
def test_batches_keep_to_the_budget_and_waste_little(requests):
    queue = Queue(unbounded)
    fill(queue, requests)
    for batch in drain(queue):
        lengths = [item.duration for item in batch]
        assert len(batch) == 1 or max(lengths) * len(batch) <= unbounded.max_batch_seconds
        assert max(lengths) <= SMALL_SECONDS or min(lengths) >= SIMILAR * max(lengths)


@given(loads)
def test_nobody_starves(requests):
    queue = Queue(unbounded)
    fill(queue, requests)
    batches = drain(queue)
    for request in range(len(requests)):
        first = next(n for n, batch in enumerate(batches) if request in owners(batch))
        assert first <= request, "every request ahead of it starts one batch, and no more"


@given(loads, loads)
def test_nobody_starves_when_others_keep_coming(requests, later):
    queue = Queue(unbounded)
    fill(queue, requests)
    last = len(requests) - 1
    for turn in range(len(requests)):
        batch = queue.next_batch(1.0, 0.0)
        if last in owners(batch):
            return
        for durations_ in later:
            number = 100 + turn * 100 + len(queue)
            queue.add([Item(number * 1000 + i, number, d, 1.0) for i, d in enumerate(durations_)])
    pytest.fail("the last request did not get its turn")


@given(loads, st.floats(min_value=1.0, max_value=300.0))
def test_the_bound_is_kept(requests, bound):
    queue = Queue(QueuePolicy(max_queue_seconds=bound))
    for request, lengths in enumerate(requests):
        before = queue.seconds
        try:
            queue.add([Item(request * 1000 + i, request, d, 0.0) for i, d in enumerate(lengths)])
        except OverloadedError:
            assert queue.seconds == before
            assert before + sum(lengths) > bound
        else:
            assert before == 0 or before + sum(lengths) <= bound + 1e-9


@settings(max_examples=200)
@given(loads, st.lists(st.floats(min_value=0.0, max_value=0.03), min_size=1, max_size=30))
def test_no_batch_waits_longer_than_max_wait(requests, pauses):
    queue = Queue(unbounded)
    fill(queue, requests)
    now = 0.0
    for pause in pauses:
        now += pause
        batch = queue.next_batch(now, 1.0)
        if now >= unbounded.max_wait:
            assert batch or not len(queue)
        elif batch:
            longest = max(item.duration for item in batch)
            assert longest * (len(batch) + 1) > unbounded.max_batch_seconds or _something_did_not_fit(queue, batch)


def _something_did_not_fit(queue, batch):
    lengths = [item.duration for item in batch]
    return any(
        max([*lengths, item.duration]) * (len(batch) + 1) > unbounded.max_batch_seconds for item in queue._items()
    )


@given(loads, st.data())
def test_removal_leaves_the_others(requests, data):
    queue = Queue(unbounded)
    fill(queue, requests)
    gone = data.draw(st.integers(0, len(requests) - 1))
    queue.remove(gone)
    left = {item.request for batch in drain(queue) for item in batch}
    assert left == set(range(len(requests))) - {gone}
