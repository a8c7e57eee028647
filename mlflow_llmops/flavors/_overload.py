"""What an overloaded model answers over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from mlflow_llmops.errors import Overloaded


class ServerOverloaded(Overloaded, MlflowException):
    """MLflow's server makes 503 of it, which clients and load balancers take as a call to try again; of any other error
    of a model it makes 400, as if the request were wrong."""

    def __init__(self, message: str) -> None:
        MlflowException.__init__(self, message, TEMPORARILY_UNAVAILABLE)


@contextmanager
def told_to_servers() -> Iterator[None]:
    """Overloaded as one that MLflow's server understands."""
    try:
        yield
    except Overloaded as error:
        raise ServerOverloaded(str(error)) from None
