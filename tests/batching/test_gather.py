"""Calls of many threads share runs, and each gets its own answers, errors and refusals."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llmops.batching.gather import Gatherer
from mlflow_llmops.errors import Overloaded


class Engine:
    """Doubles numbers, says which runs it made, and can be held up."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs: list[tuple[list[int], object]] = []
        self.seconds, self.free, self.entered = seconds, Event(), Event()
        self.free.set()

    def __call__(self, items, how):
        self.runs.append((items, how))
        self.entered.set()
        self.free.wait()
        time.sleep(self.seconds)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


def blocked(engine: Engine, gatherer: Gatherer, pool: ThreadPoolExecutor):
    """A call that is in the network until `engine.free` is set."""
    engine.free.clear()
    first = pool.submit(gatherer, [0], 1)
    engine.entered.wait()
    return first


def queued(gatherer: Gatherer, count: int) -> None:
    end = time.monotonic() + 10
    while len(gatherer._waiting) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


CALLS = st.lists(
    st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.sampled_from([None, "other"])),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=40)
@given(CALLS, st.integers(1, 40))
def test_each_call_gets_its_own_answers_or_its_own_error(calls, budget):
    gatherer = Gatherer(Engine(0.0005), budget, queue=100)

    def ask(call):
        items, how = call
        try:
            return gatherer(items, len(items), how)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, calls))
    for (items, _), answer in zip(calls, answers, strict=True):
        assert answer == ("thirteen" if 13 in items else [2 * item for item in items])
    for items, _ in gatherer._run.runs:
        assert len(items) <= budget or len(items) <= 5, "only a call that is dearer by itself goes over the budget"


def test_what_comes_while_the_network_is_busy_shares_its_next_run():
    engine = Engine()
    gatherer = Gatherer(engine, budget=100, queue=100)
    with ThreadPoolExecutor(40) as pool:
        first = blocked(engine, gatherer, pool)
        others = [pool.submit(gatherer, [i], 1) for i in range(1, 13)]
        queued(gatherer, 12)
        engine.free.set()
        assert first.result() == [0]
        assert [other.result() for other in others] == [[2 * i] for i in range(1, 13)]
    assert [len(items) for items, _ in engine.runs] == [1, 12]
    assert (gatherer.calls, gatherer.runs) == (13, 2)


def test_only_equal_requests_share_a_run():
    engine = Engine()
    gatherer = Gatherer(engine, budget=100, queue=100)
    with ThreadPoolExecutor(40) as pool:
        blocked(engine, gatherer, pool)
        for how in ("a", "b"):
            for i in range(3):
                pool.submit(gatherer, [i], 1, how)
            queued(gatherer, 3 if how == "a" else 6)
        engine.free.set()
    assert [(len(items), how) for items, how in engine.runs] == [(1, None), (3, "a"), (3, "b")]


def test_a_full_queue_refuses_in_one_line_and_recovers():
    engine = Engine()
    gatherer = Gatherer(engine, budget=100, queue=3)
    with ThreadPoolExecutor(40) as pool:
        blocked(engine, gatherer, pool)
        waiting = [pool.submit(gatherer, [i], 1) for i in range(3)]
        queued(gatherer, 3)
        with pytest.raises(Overloaded, match="^overloaded: 3 calls wait .*try again later") as told:
            gatherer([9], 1)
        assert "\n" not in str(told.value)
        engine.free.set()
        assert [each.result() for each in waiting] == [[0], [2], [4]]
    assert gatherer([9], 1) == [18]
    assert gatherer.refused == 1


def test_one_that_fails_costs_the_others_nothing():
    engine = Engine()
    gatherer = Gatherer(engine, budget=100, queue=100)
    with ThreadPoolExecutor(40) as pool:
        blocked(engine, gatherer, pool)
        good = [pool.submit(gatherer, [i], 1) for i in range(4)]
        bad = pool.submit(gatherer, [1, 13], 2)
        queued(gatherer, 5)
        engine.free.set()
        assert [each.result() for each in good] == [[0], [2], [4], [6]]
        with pytest.raises(ValueError, match="thirteen"):
            bad.result()
    assert gatherer([5], 1) == [10]


def test_a_call_dearer_than_the_budget_holds_nobody_up():
    engine = Engine()
    gatherer = Gatherer(engine, budget=4, queue=100)
    with ThreadPoolExecutor(40) as pool:
        first = blocked(engine, gatherer, pool)
        engine.entered.clear()
        dear = pool.submit(gatherer, list(range(10)), 10)
        assert engine.entered.wait(10), "it runs beside the one that is in the network"
        engine.free.set()
        assert (first.result(), dear.result()) == ([0], [2 * i for i in range(10)])


def test_a_lone_call_runs_at_once_and_every_small_one_in_the_same_thread():
    seen = []
    gatherer = Gatherer(lambda items, how: [seen.append(threading.get_ident()) for _ in items], 10, 100)
    start = time.perf_counter()
    for _ in range(1000):
        gatherer([1], 1)
    assert (time.perf_counter() - start) / 1000 < 5e-3, "what a lone client may lose at most"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: gatherer([i], 1), range(100)))
    assert len(set(seen)) == 1
    gatherer([1], 11)
    assert seen[-1] not in {seen[0], threading.get_ident()}, "a dear one has another thread, and not its caller's"


class Panic(BaseException):
    """As tokenizers' Rust raises it: no Exception."""


def test_nothing_that_a_run_raises_leaves_the_others_waiting():
    def run(items, how):
        if 13 in items:
            raise Panic
        return items

    gatherer = Gatherer(run, budget=100, queue=100)
    for _ in range(3):
        with pytest.raises(Panic):
            gatherer([13], 1)
        assert gatherer([1], 1) == [1]
