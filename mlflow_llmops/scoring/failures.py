"""What went wrong in a worker, as the error that it was there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from mlflow_llmops import errors
from mlflow_llmops.errors import LLMOpsError

RAISED = re.compile(r"mlflow_llmops\.errors\.(\w+): (.*)")
"""The last line of a worker's traceback."""


@contextmanager
def told() -> Iterator[None]:
    """Spark wraps a worker's errors in pages of its own: raise ours again, one line each."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if said := RAISED.search(str(error)):
            kind = getattr(errors, said[1], LLMOpsError)
            raise kind(said[2].strip()) from error
        raise
