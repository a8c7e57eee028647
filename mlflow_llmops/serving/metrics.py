"""What a server says of itself in Prometheus' text format, summed over its workers."""

import os
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.registry import REGISTRY

from mlflow_llmops.serving.settings import METRICS

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
requests = Counter("llmops_requests", "Requests by route and status", ["route", "status"])
seconds = Histogram("llmops_request_seconds", "From a request's head to its whole answer", ["route"], buckets=SECONDS)
waiting = Gauge("llmops_waiting", "Requests that wait for the engine", multiprocess_mode="livesum")
batch = Histogram("llmops_batch_requests", "Requests that ran together", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
hits = Counter("llmops_cache_hits", "Texts whose answer was in the cache")
misses = Counter("llmops_cache_misses", "Texts that were not")
written = Counter("llmops_generated_tokens", "Tokens that were written")
hung_up = Counter("llmops_hung_up", "Clients that left before their answer")
changes = Counter("llmops_version_changes", "Versions that took over, and those that could not", ["outcome"])
ready = Gauge("llmops_ready", "1 for a worker whose model is loaded", multiprocess_mode="liveall")
version = Gauge("llmops_version", "The number of the version that serves", multiprocess_mode="liveall")


def text() -> bytes:
    """All of it."""
    if METRICS not in os.environ:
        return generate_latest(REGISTRY)
    for path in Path(os.environ[METRICS]).glob("gauge_live*_*.db"):  # of a worker that was killed
        if (pid := path.stem.rpartition("_")[2]).isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(FileNotFoundError):  # another worker does the same
                multiprocess.mark_process_dead(pid)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
