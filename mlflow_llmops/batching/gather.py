"""Calls that many threads make at once become one batch, which a network runs sooner than one after the other."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from threading import BoundedSemaphore, Event, Lock
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
        self.alone = False
        """It was in a batch that failed, and is to find out whether it was to blame."""


class Gatherer(Generic[Item, Answer]):
    """`run(items, how)` for callers of any thread. Nobody waits for company: a call that finds the network free runs at
    once, in its own thread; those that come meanwhile share the next run, in arrival order, up to `budget` of cost.
    There is no thread of its own, so nothing is left to end, or to miss after a fork.

    A call that is dearer than the budget fills batches by itself and is run beside the others.

    Raises Overloaded where `queue` calls wait already. What `run` raises reaches only the calls that it is raised for.
    """

    def __init__(self, run: Callable[[list[Item], Hashable], Sequence[Answer]], budget: int, queue: int) -> None:
        self._run, self.budget, self.queue = run, budget, queue
        self.calls = self.runs = self.refused = 0
        self._lock, self._waiting = Lock(), deque[_Call[Item, Answer]]()
        self._busy, self._dear = False, 0
        self._side = BoundedSemaphore(os.cpu_count() or 1)

    def __call__(self, items: Sequence[Item], cost: int, how: Hashable = None) -> Sequence[Answer]:
        """The answers to `items`, whose cost is `cost` in all; only calls with an equal `how` share a run."""
        call: _Call[Item, Answer] = _Call(items, how, cost)
        if cost > self.budget:
            return self._beside(call)
        with self._lock:
            self.calls += 1
            leads = not self._busy
            if leads:
                self._busy = True
            else:
                self._admit(len(self._waiting))
                self._waiting.append(call)
        if not leads:
            self._wait(call)
        if call.answers is None and not call.alone:
            self._lead(call)
        return self._by_itself(call) if call.answers is None else call.answers

    def _beside(self, call: _Call[Item, Answer]) -> Sequence[Answer]:
        with self._lock:
            self.calls += 1
            self._admit(self._dear)
            self._dear += 1
        try:
            return self._by_itself(call)
        finally:
            with self._lock:
                self._dear -= 1

    def _admit(self, waiting: int) -> None:
        if waiting >= self.queue:
            self.refused += 1
            raise Overloaded(
                f"overloaded: {waiting} calls wait for the model already; try again later, run more replicas, or raise "
                "the option queue of its model_config"
            )

    def _by_itself(self, call: _Call[Item, Answer]) -> Sequence[Answer]:
        with self._side:
            self.runs += 1
            return self._run(list(call.items), call.how)

    def _wait(self, call: _Call[Item, Answer]) -> None:
        try:
            call.woken.wait()
        except BaseException:  # an interrupt: others must not wait for this thread
            with self._lock:
                queued = call in self._waiting
                if queued:
                    self._waiting.remove(call)
            if not queued:
                call.woken.wait()
                if call.answers is None and not call.alone:
                    self._pass_on()
            raise

    def _lead(self, call: _Call[Item, Answer]) -> None:
        """Run this call and what waits and fits with it, then let the first of those that are left lead."""
        taken = [call]
        with self._lock:
            cost = call.cost
            while self._waiting and self._waiting[0].how == call.how and cost + self._waiting[0].cost <= self.budget:
                taken.append(self._waiting.popleft())
                cost += taken[-1].cost
            self.runs += 1
        try:
            self._answer(taken)
        finally:
            self._pass_on()
            for other in taken:
                other.alone = other.answers is None
                other.woken.set()

    def _answer(self, taken: list[_Call[Item, Answer]]) -> None:
        items = [item for each in taken for item in each.items]
        answers: Sequence[Answer] = ()
        if len(taken) == 1:
            answers = self._run(items, taken[0].how)
        else:
            # not lost: each call runs again by itself, and whoever is to blame meets the error there
            with suppress(Exception):
                answers = self._run(items, taken[0].how)
            if len(answers) != len(items):
                return
        start = 0
        for each in taken:
            each.answers = answers[start : start + len(each.items)]
            start += len(each.items)

    def _pass_on(self) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._busy = following is not None
        if following is not None:
            following.woken.set()
