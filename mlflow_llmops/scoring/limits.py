"""Limits over a whole job without a server: each task gets a fixed share, and no more tasks run than shares."""

import threading
import time
from dataclasses import dataclass

WITHOUT_A_WORD = 8
"""Tasks of a job whose cluster does not say how many it can run at once."""


@dataclass(frozen=True)
class Limits:
    """Of a job. `tasks` partitions, so never more of them at once, whatever the cluster."""

    tasks: int
    concurrency: int
    requests_per_second: float | None

    def share(self, task: int) -> "Pace":
        """Of the task at this position: its threads, and how far apart its calls begin, in seconds."""
        threads = self.concurrency // self.tasks + (task % self.tasks < self.concurrency % self.tasks)
        if self.requests_per_second is None:
            return Pace(threads, 0.0, 0.0)
        apart = self.tasks / self.requests_per_second
        return Pace(threads, apart, apart * (task % self.tasks) / self.tasks)


class Pace:
    """Lets calls begin at least `apart` seconds after each other, the first after `delay`; threads share it."""

    def __init__(self, threads: int, apart: float, delay: float) -> None:
        self.threads, self._apart = threads, apart
        self._next = time.monotonic() + delay
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Until it is the caller's turn."""
        if not self._apart:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._apart
        time.sleep(max(0.0, turn - time.monotonic()))


def limits_of(concurrency: int | None, requests_per_second: float | None, slots: int | None) -> Limits:
    """`slots` is how many tasks the cluster runs at once, where it is known. With a rate alone each task makes one call
    at a time."""
    most = slots or WITHOUT_A_WORD
    allowed = concurrency or most
    return Limits(min(allowed, most), allowed, requests_per_second)
