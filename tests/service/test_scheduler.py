"""The engine thread: whatever the engine does, every future is settled once, and soon."""

import threading
from concurrent.futures import CancelledError

import pytest

from models.errors import CheckpointError, EngineError
from models.fake import FakeEngine, Faults
from service.errors import EngineDeadError, NotReadyError, OverloadedError, StoppingError
from service.queue import QueuePolicy
from service.scheduler import Phase, Scheduler

TIMEOUT = 60.0
EAGER = QueuePolicy(max_wait=0.0)


@pytest.fixture
def start():
    """Starts schedulers and stops them at the end, with all gates open."""
    started = []

    def build(engine=None, policy=EAGER, ready=True, factory=None, **more):
        scheduler = Scheduler(factory or (lambda: engine or FakeEngine()), policy, **more)
        started.append((scheduler, engine))
        scheduler.start()
        if ready:
            scheduler.wait_ready(TIMEOUT)
        return scheduler

    yield build
    for scheduler, engine in started:
        if engine is not None:
            for gate in (engine._faults.gate, engine._faults.warm_up_gate):
                if gate is not None:
                    gate.set()
        scheduler.stop(0.0)
        assert scheduler.open_requests == 0
        assert not scheduler._thread.is_alive()


def texts(future):
    return [hypothesis.text for hypothesis in future.result(TIMEOUT).hypotheses]


def test_answers_come_in_the_order_of_the_utterances(start, make_utterance):
    scheduler = start()
    future = scheduler.submit([make_utterance("xxx"), make_utterance("x"), make_utterance("xx", offset=1.0)])
    assert texts(future) == ["Alpha bravo charlie", "Alpha", "charlie delta"]
    assert future.result().queue_seconds >= 0
    assert future.result().inference_seconds >= 0


def test_no_utterances_no_work(start):
    assert start().submit([]).result(0).hypotheses == ()


def test_callers_share_a_batch(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine)
    futures = [scheduler.submit([make_utterance("x")])]
    until(lambda: engine.active)
    futures += [scheduler.submit([make_utterance("xx")]) for _ in range(5)]
    gate.set()
    assert [texts(future) for future in futures] == [[t] for t in ["Alpha"] + ["Alpha bravo"] * 5]
    assert [len(batch) for batch in engine.batches] == [1, 5]


def test_a_long_file_does_not_starve_a_short_one(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine, QueuePolicy(max_batch_seconds=40.0, max_active_seconds=80.0, max_wait=0.0))
    long = scheduler.submit([make_utterance("x" * 80) for _ in range(20)])
    until(lambda: engine.active)
    short = scheduler.submit([make_utterance("x" * 6, context="short")])
    gate.set()
    assert len(texts(long)) == 20
    texts(short)
    [position] = [n for n, batch in enumerate(engine.batches) if batch[0].options.context == "short"]
    assert position <= 2


def test_the_active_seconds_are_bounded(start, make_utterance):
    class Watching(FakeEngine):
        most = 0.0

        def step(self):
            self.most = max(self.most, sum(row.utterance.duration for row in self._rows.values()))
            return super().step()

    engine = Watching()
    scheduler = start(engine, QueuePolicy(max_batch_seconds=20.0, max_active_seconds=50.0, max_wait=0.0))
    futures = [scheduler.submit([make_utterance("x" * 10)] * 4) for _ in range(10)]
    for future in futures:
        texts(future)
    assert 20.0 < engine.most <= 50.0


def test_a_cancelled_caller_costs_nothing(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine)
    first = scheduler.submit([make_utterance("x")])
    until(lambda: engine.active)
    waiting = scheduler.submit([make_utterance("x", context="gone")])
    assert waiting.cancel()
    gate.set()
    texts(first)
    texts(scheduler.submit([make_utterance("x")]))
    assert not [u for batch in engine.batches for u in batch if u.options.context == "gone"]


def test_a_cancelled_caller_frees_its_slots(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine)
    future = scheduler.submit([make_utterance("x" * 80), make_utterance("x" * 70)])
    until(lambda: engine.active == 2)
    assert future.cancel()
    gate.set()
    until(lambda: len(engine.cancelled) == 2)
    assert engine.steps < 70
    with pytest.raises(CancelledError):
        future.result(0)
    assert scheduler.open_requests == 0


def test_an_error_fails_its_own_request_only(start, make_utterance):
    engine = FakeEngine(faults=Faults(poisoned=lambda u: u.options.context == "bad"))
    scheduler = start(engine)
    bad = scheduler.submit([make_utterance("x" * 60), make_utterance("x", context="bad")])
    good = scheduler.submit([make_utterance("xx")])
    with pytest.raises(EngineError, match="told to fail"):
        bad.result(TIMEOUT)
    assert texts(good) == ["Alpha bravo"]


def test_a_batch_that_is_refused_is_halved_until_the_guilty_is_alone(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate, inadmissible=lambda u: u.options.context == "bad"))
    scheduler = start(engine)
    first = scheduler.submit([make_utterance("x")])
    until(lambda: engine.active)
    futures = [scheduler.submit([make_utterance("x", context="bad" if n == 5 else "")]) for n in range(8)]
    gate.set()
    texts(first)
    with pytest.raises(EngineError, match="the engine failed on this audio") as caught:
        futures.pop(5).result(TIMEOUT)
    assert "inadmissible" in str(caught.value.__cause__)
    assert [texts(future) for future in futures] == [["Alpha"]] * 7


def test_out_of_memory_at_admission_halves_the_batch(start, make_utterance):
    engine = FakeEngine(faults=Faults(max_padded_seconds=8.0))
    scheduler = start(engine)
    future = scheduler.submit([make_utterance("xxxx") for _ in range(16)])
    assert texts(future) == ["Alpha bravo charlie delta"] * 16
    assert [len(batch) for batch in engine.batches] == [4] * 4


def test_what_never_fits_fails(start, make_utterance):
    scheduler = start(FakeEngine(faults=Faults(max_padded_seconds=1.0)))
    with pytest.raises(EngineError):
        scheduler.submit([make_utterance("xxxx")]).result(TIMEOUT)
    assert texts(scheduler.submit([make_utterance("x")])) == ["Alpha"]


def test_out_of_memory_in_a_step_starts_again_with_less(start, make_utterance):
    engine = FakeEngine(faults=Faults(max_active=3))
    scheduler = start(engine)
    futures = [scheduler.submit([make_utterance("xx")] * 4) for _ in range(4)]
    assert [texts(future) for future in futures] == [["Alpha bravo"] * 4] * 4


def test_what_does_not_fit_beside_others_waits_until_the_engine_is_idle(start, make_utterance, until):
    class Small(FakeEngine):
        def admit(self, batch):
            if self.active:
                raise RuntimeError("CUDA out of memory")
            super().admit(batch)

    gate = threading.Event()
    engine = Small(faults=Faults(gate=gate))
    scheduler = start(engine)
    futures = [scheduler.submit([make_utterance("xxx")])]
    until(lambda: engine.active)
    futures += [scheduler.submit([make_utterance("x")]) for _ in range(3)]
    gate.set()
    assert [texts(future) for future in futures] == [["Alpha bravo charlie"]] + [["Alpha"]] * 3
    assert [len(batch) for batch in engine.batches] == [1, 3]


def test_a_failed_step_fails_what_it_touched_and_the_next_one_works(start, make_utterance):
    class FailingOnce(FakeEngine):
        failed = False

        def step(self):
            if not self.failed:
                self.failed = True
                raise ValueError("a kernel went wrong")
            return super().step()

    scheduler = start(FailingOnce())
    with pytest.raises(EngineError, match="the engine failed on this audio"):
        scheduler.submit([make_utterance("x")]).result(TIMEOUT)
    assert texts(scheduler.submit([make_utterance("x")])) == ["Alpha"]


def test_an_engine_that_loses_utterances_is_noticed(start, make_utterance):
    class Forgetful(FakeEngine):
        def step(self):
            super().step()
            self._rows.clear()
            return []

    with pytest.raises(EngineError, match="lost"):
        start(Forgetful()).submit([make_utterance("x")]).result(TIMEOUT)


def test_death_fails_all_who_wait(start, make_utterance, until):
    deaths = []
    gate = threading.Event()
    boom = SystemError("the device is gone")
    engine = FakeEngine(faults=Faults(gate=gate, step_error=RuntimeError("a step"), cancel_error=boom))
    scheduler = start(engine, on_death=deaths.append)
    futures = [scheduler.submit([make_utterance("x")]) for _ in range(4)]
    until(lambda: engine.active)
    gate.set()
    for future in futures:
        with pytest.raises(EngineDeadError):
            future.result(TIMEOUT)
    until(lambda: deaths)
    assert deaths == [boom]
    assert (scheduler.phase, scheduler.death) == (Phase.DEAD, boom)
    with pytest.raises(EngineDeadError):
        scheduler.submit([make_utterance("x")])
    with pytest.raises(EngineDeadError):
        scheduler.check_accepting()


def test_an_engine_that_cannot_be_built_is_a_death(start, until):
    def factory():
        raise CheckpointError("weights.nemo: not a tar file")

    deaths = []
    scheduler = start(factory=factory, ready=False, on_death=deaths.append)
    with pytest.raises(EngineDeadError) as caught:
        scheduler.wait_ready(TIMEOUT)
    assert isinstance(caught.value.__cause__, CheckpointError)
    with pytest.raises(EngineDeadError):
        _ = scheduler.card
    until(lambda: deaths)


def test_warm_up_comes_before_ready(start, make_utterance, until):
    gate = threading.Event()
    scheduler = start(FakeEngine(faults=Faults(warm_up_gate=gate)), ready=False)
    until(lambda: scheduler.phase is Phase.WARMING_UP)
    with pytest.raises(NotReadyError, match="warming up") as caught:
        scheduler.submit([make_utterance("x")])
    assert caught.value.retry_after
    with pytest.raises(NotReadyError):
        scheduler.wait_ready(0.0)
    gate.set()
    assert scheduler.wait_ready(TIMEOUT).id == "fake"


def test_a_failed_warm_up_is_a_death(start):
    scheduler = start(FakeEngine(faults=Faults(warm_up_error=RuntimeError("no kernel"))), ready=False)
    with pytest.raises(EngineDeadError):
        scheduler.wait_ready(TIMEOUT)


def test_overload_is_refused_with_a_time(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine, QueuePolicy(max_queue_seconds=3.0, max_wait=0.0))
    first = scheduler.submit([make_utterance("x")])
    until(lambda: engine.active)
    second = scheduler.submit([make_utterance("xxxx")])
    scheduler.check_accepting()
    with pytest.raises(OverloadedError) as caught:
        scheduler.submit([make_utterance("xxx")])
    assert 1.0 <= caught.value.retry_after <= 60.0
    third = scheduler.submit([make_utterance("xx")])
    with pytest.raises(OverloadedError):
        scheduler.check_accepting()
    gate.set()
    assert [texts(f) for f in (first, second, third)] == [["Alpha"], ["Alpha bravo charlie delta"], ["Alpha bravo"]]


def test_retry_after_is_what_the_queue_takes_at_the_measured_speed(start, make_utterance):
    now = [0.0]

    class OneSecondPerStep(FakeEngine):
        def step(self):
            now[0] += 1.0
            return super().step()

    scheduler = start(OneSecondPerStep(), clock=lambda: now[0])
    texts(scheduler.submit([make_utterance("xxx...")]))
    # 3 s of audio took 4 steps, a word each and the end: 0.75 s of audio a second.
    scheduler.stop(0.0)
    assert scheduler._retry_after(30.0) == pytest.approx(40.0)
    assert scheduler._retry_after(0.1) == 1.0
    assert scheduler._retry_after(900.0) == 60.0


def test_stop_lets_the_accepted_finish(start, make_utterance, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine)
    futures = [scheduler.submit([make_utterance("x")]) for _ in range(3)]
    stopping = threading.Thread(target=scheduler.stop, args=(TIMEOUT,))
    stopping.start()
    until(lambda: scheduler.phase is Phase.STOPPING)
    with pytest.raises(StoppingError):
        scheduler.submit([make_utterance("x")])
    gate.set()
    stopping.join(TIMEOUT)
    assert [texts(future) for future in futures] == [["Alpha"]] * 3


def test_stop_fails_the_rest_at_the_deadline(start, make_utterance, until, monkeypatch):
    monkeypatch.setattr("service.scheduler.JOIN_SECONDS", 0.01)
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    scheduler = start(engine)
    futures = [scheduler.submit([make_utterance("x")]) for _ in range(3)]
    until(lambda: engine.active)
    scheduler.stop(0.01)
    for future in futures:
        with pytest.raises(StoppingError):
            future.result(0)
    gate.set()
    until(lambda: not scheduler._thread.is_alive())


def test_many_threads_and_cancels_leave_nothing_behind(start, make_utterance):
    engine = FakeEngine(faults=Faults(poisoned=lambda u: u.options.context == "bad"))
    scheduler = start(engine, QueuePolicy(max_wait=0.0, max_active_seconds=30.0, max_batch_seconds=10.0))
    settled = []

    def call(seed):
        for n in range(40):
            context = "bad" if (seed + n) % 7 == 0 else ""
            future = scheduler.submit([make_utterance("x" * (1 + (seed * n) % 9), context=context)] * (1 + n % 3))
            if (seed + n) % 5 == 0:
                future.cancel()
            settled.append((future, context))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for future, context in settled:
        try:
            future.result(TIMEOUT)
            assert not context
        except EngineError:
            assert context
        except CancelledError:
            pass
    scheduler.stop(TIMEOUT)
    assert (engine.active, scheduler.open_requests, scheduler._owners, scheduler._active) == (0, 0, {}, {})
