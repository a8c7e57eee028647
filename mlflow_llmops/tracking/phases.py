"""Where the seconds of a run go: into the method's own work, measuring, the proof by reloading, or tracking it all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Measurements


class Phases:
    """A watch that is always in one phase: tracking, unless it is told another. One inside another stops the outer."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = dict.fromkeys(names.PHASES, 0.0)
        self._clock = clock
        self._at = [names.TRACKING_SECONDS]
        self._since = clock()

    @contextmanager
    def doing(self, phase: str) -> Iterator[None]:
        """The time inside belongs to `phase`, one of `names.PHASES`."""
        self._count()
        self._at.append(phase)
        try:
            yield
        finally:
            self._count()
            self._at.pop()

    def measurements(self) -> Measurements:
        """Up to now: seconds of each phase, and which share of all of them neither worked nor measured."""
        self._count()
        beyond = self.seconds[names.PROOF_SECONDS] + self.seconds[names.TRACKING_SECONDS]
        return {**self.seconds, names.SHARE_BEYOND: beyond / max(sum(self.seconds.values()), 1e-9)}

    def _count(self) -> None:
        now = self._clock()
        self.seconds[self._at[-1]] += now - self._since
        self._since = now
