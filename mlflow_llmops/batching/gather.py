"""Calls that many threads make at once become one batch, which a network runs sooner than one after the other."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Lock
from typing import Generic, TypeVar

from mlflow_llmops.errors import Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Call(Generic[Item, Answer]):
    """One caller's items, and where its thread waits."""

    def __init__(self, items: Sequence[Item], how: Hashable, cost: int) -> None:
        self.items, self.how, self.cost = items, how, cost
        self.woken = Event()
        self.answers: Sequence[Answer] | None = None


class Gatherer(Generic[Item, Answer]):
    """`run(items, how)` for callers of any thread. Nobody waits for company: a call that finds the network free runs at
    once; those that come meanwhile share the next run, in arrival order, up to `budget` of cost.

    All such runs are in one thread of their own: OpenMP keeps a team of threads for each thread that ever called it,
    and the teams of a server's many threads would spin against each other. A call that is dearer than the budget fills
    batches by itself and runs beside the others, in one of as many threads as there are cores.

    Raises Overloaded where `queue` calls wait already. What `run` raises reaches only the calls that it is raised for.
    """

    def __init__(self, run: Callable[[list[Item], Hashable], Sequence[Answer]], budget: int, queue: int) -> None:
        self._run, self.budget, self.queue = run, budget, queue
        self.calls = self.runs = self.refused = 0
        self._lock, self._waiting = Lock(), deque[_Call[Item, Answer]]()
        self._busy, self._dear = False, 0
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="gathered")
        self._side = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="dear")

    def __call__(self, items: Sequence[Item], cost: int, how: Hashable = None) -> Sequence[Answer]:
        """The answers to `items`, whose cost is `cost` in all; only calls with an equal `how` share a run."""
        if cost > self.budget:
            return self._beside(items, how)
        call: _Call[Item, Answer] = _Call(items, how, cost)
        with self._lock:
            self.calls += 1
            self._admit(len(self._waiting))
            self._waiting.append(call)
            if not self._busy:
                self._runner.submit(self._work)
                self._busy = True
        call.woken.wait()
        if call.answers is None:  # its run failed: whose fault it was shows when each is run by itself
            return self._runner.submit(self._once, list(items), how).result()
        return call.answers

    def _admit(self, waiting: int) -> None:
        if waiting >= self.queue:
            self.refused += 1
            raise Overloaded(
                f"overloaded: {waiting} calls wait for the model already; try again later, run more replicas, or raise "
                "the option queue of its model_config"
            )

    def _beside(self, items: Sequence[Item], how: Hashable) -> Sequence[Answer]:
        with self._lock:
            self.calls += 1
            self._admit(self._dear)
            self._dear += 1
        try:
            return self._side.submit(self._once, list(items), how).result()
        finally:
            with self._lock:
                self._dear -= 1

    def _once(self, items: list[Item], how: Hashable) -> Sequence[Answer]:
        with self._lock:
            self.runs += 1
        return self._run(items, how)

    def _work(self) -> None:
        """In the runner's thread, as long as anyone waits."""
        while taken := self._take():
            items = [item for call in taken for item in call.items]
            try:
                # not lost: each caller meets its own again; tokenizers and engines raise more than Exception
                with suppress(BaseException):
                    self._hand_out(taken, self._once(items, taken[0].how))
            finally:
                for call in taken:
                    call.woken.set()

    def _take(self) -> list[_Call[Item, Answer]]:
        """Who has waited longest, and those behind that fit with it."""
        taken: list[_Call[Item, Answer]] = []
        with self._lock:
            cost = 0
            while self._waiting:
                following = self._waiting[0]
                if taken and (following.how != taken[0].how or cost + following.cost > self.budget):
                    break
                taken.append(self._waiting.popleft())
                cost += following.cost
            self._busy = bool(taken)
        return taken

    @staticmethod
    def _hand_out(taken: list[_Call[Item, Answer]], answers: Sequence[Answer]) -> None:
        start = 0
        for call in taken:
            call.answers = answers[start : start + len(call.items)]
            start += len(call.items)
