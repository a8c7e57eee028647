"""Let MLflow's server hand more than a few requests at once to `predict`."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from mlflow.pyfunc.scoring_server import _SERVER_MODEL_PATH

from mlflow_llmops.batching.options import EngineOptions

MORE = 8
"""Threads beyond the queue: those that are in the network, and those that tell a client of an overload."""


def widen(options: EngineOptions) -> None:
    """Where this is `mlflow models serve` loading its model, give its event loop as many threads as may wait.

    Its default, the machine's cores and four, would leave requests waiting in front of the model, where they can be
    neither gathered nor refused.
    """
    if not options.gather or _SERVER_MODEL_PATH not in os.environ:
        return
    try:
        loop = asyncio.get_running_loop()  # uvicorn imports the application from within its loop
    except RuntimeError:
        return
    loop.set_default_executor(ThreadPoolExecutor(options.queue + MORE, thread_name_prefix="predict"))
