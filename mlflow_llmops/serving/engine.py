"""One thread that runs the model, and the queue before it: whatever waits when it becomes free goes together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mlflow_llmops.serving import metrics
from mlflow_llmops.serving.refusals import busy, too_late

RECENT = 0.2
"""What the newest turn counts in the mean of seconds a request."""


@dataclass(eq=False)
class Job:
    """What one request wants of the model."""

    run: Callable[[list["Job"]], list[Any]]
    """Called in the engine's thread with jobs of the same `together`; gives their results in order."""
    item: Any
    together: Hashable = None
    """None: it runs alone."""
    cost: int = 0
    """Tokens, about; a turn has at most `budget` of them, or a single job."""
    budget: int = 0
    gone: bool = False
    """Nobody waits for it any more."""
    future: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def finish(self, result: Any) -> None:
        """In the loop's thread; the first result counts."""
        if not self.future.done():
            self.future.set_result(result)


class Engine:
    """A bounded queue and its thread. Everything but `run` happens in the event loop."""

    def __init__(self, max_waiting: int, timeout: float) -> None:
        self.max_waiting, self.timeout = max_waiting, timeout
        self.waiting: deque[Job] = deque()
        self.arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "engine")
        self.seconds_each = 0.0
        self.task = asyncio.get_running_loop().create_task(self._work())

    def submit(self, job: Job) -> Job:
        """Raises Refused, with the time to wait, where the queue is full or longer than a request may take."""
        expected = len(self.waiting) * self.seconds_each
        if len(self.waiting) >= self.max_waiting or expected > self.timeout / 2:
            raise busy(expected)
        self.waiting.append(job)
        metrics.waiting.set(len(self.waiting))
        self.arrived.set()
        return job

    async def answer(self, job: Job) -> Any:
        """The job's result. Raises Refused where it takes too long, and what running it raised."""
        try:
            return await asyncio.wait_for(self.submit(job).future, self.timeout)
        except TimeoutError:
            raise too_late(self.timeout) from None
        finally:
            job.gone = True

    async def stop(self) -> None:
        """Called when no request is left."""
        self.task.cancel()
        self.thread.shutdown(wait=True, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            await self.arrived.wait()
            jobs = self._take()
            metrics.waiting.set(len(self.waiting))
            if not self.waiting:
                self.arrived.clear()
            if jobs:
                start = time.perf_counter()
                await self._turn(jobs)
                each = (time.perf_counter() - start) / len(jobs)
                self.seconds_each += RECENT * (each - self.seconds_each)

    def _take(self) -> list[Job]:
        """From the head of the queue, in order: what is nobody's is left out."""
        jobs: list[Job] = []
        cost = 0
        while self.waiting:
            job = self.waiting[0]
            if not job.gone:
                fits = job.together is not None and jobs and job.together == jobs[0].together
                if jobs and not (fits and cost + job.cost <= job.budget):
                    break
                jobs.append(job)
                cost += job.cost
            self.waiting.popleft()
        return jobs

    async def _turn(self, jobs: list[Job]) -> None:
        metrics.batch.observe(len(jobs))
        done = asyncio.get_running_loop().run_in_executor(self.thread, jobs[0].run, jobs)
        await asyncio.wait([done])
        error = done.exception()
        if error is None:
            for job, result in zip(jobs, done.result(), strict=True):
                job.finish(result)
        elif len(jobs) > 1:  # the guilty one alone is to fail
            for job in jobs:
                if not job.future.done():
                    await self._turn([job])
        elif not jobs[0].future.done():
            jobs[0].future.set_exception(error)
            jobs[0].future.exception()  # seen, also where nobody waits any more
