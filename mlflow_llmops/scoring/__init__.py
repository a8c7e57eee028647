"""Batch scoring with Spark: `score(df, model_uri, ...)` for jobs in which rows may fail and machines may die."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_llmops.scoring.job import score as score

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    # A Spark worker imports this package to unpickle its task, and a driver's half of it is not light.
    if name == "score":
        from mlflow_llmops.scoring.job import score

        return score
    raise AttributeError(f"module {__name__} has no attribute {name}")
