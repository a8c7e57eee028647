"""Threads of `mlflow models serve`, as many as may wait for a model that gathers their calls."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

APP = "mlflow.pyfunc.scoring_server.app"
"""The module that loads a model to serve it, inside of the server's running loop."""
REFUSED = 16
"""Threads beyond those that may wait, so that a call too many is told at once."""


def widen_server(queue: int) -> None:
    """Let the server that loads a model right now hold `queue` calls at once; elsewhere it does nothing.

    It runs `predict` in its loop's default threads, four more than there are cores: on two cores no batch would hold
    more than a few calls, and those beyond would wait in a line without bound that refuses nobody.
    """
    if APP not in sys.modules:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    loop.set_default_executor(ThreadPoolExecutor(1 + queue + REFUSED, thread_name_prefix="predict"))
