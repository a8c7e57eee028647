"""A bar with rows per second and the time left while Spark works."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession
from tqdm import tqdm

from mlflow_llmops.scoring.worker import Counters

SECONDS = 0.5
"""Between two looks. Spark tells when a task has ended, so the bar moves a task at a time."""


def counters_of(spark: SparkSession) -> Counters | None:
    """Accumulators for a job; None on Spark Connect, which has none."""
    context = getattr(spark, "sparkContext", None)
    return None if context is None else Counters(context.accumulator(0), context.accumulator(0))


@contextmanager
def shown(counters: Counters | None, total: int, done_before: int = 0) -> Iterator[None]:
    """Show it on stderr until the block ends."""
    if counters is None:
        yield
        return
    with tqdm(total=total, initial=done_before, unit=" rows", desc="scoring", mininterval=0.0) as bar:
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(bar, counters, done_before, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _watch(bar: "tqdm[None]", counters: Counters, done_before: int, over: threading.Event) -> None:
    while True:
        last = over.wait(SECONDS)
        errors = counters.errors.value
        if errors:
            bar.set_postfix_str(f"{errors:,} failed", refresh=False)
        # rows of a task that was tried again are counted again
        bar.update(min(done_before + counters.rows.value, bar.total) - bar.n)
        if last:
            return
