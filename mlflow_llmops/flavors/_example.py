"""The input example that MLflow shows beside a model, and `mlflow models predict` can be given."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd
from mlflow.models import Model
from mlflow.models.utils import _save_example

MADE_UP = "The old boat left the harbour with fish and salt."
UNASKED = {"validate_serving_input": False}
"""For `Model.log`: it would load the model once more to ask it the example, which a fresh process is asked anyway, and
which an endpoint is paid for."""


def keep_example(model: Model, path: str | os.PathLike[str], example: Any = None) -> None:
    """Write it into the folder of a model that is being saved; a made-up text where there is none."""
    _save_example(model, [MADE_UP] if example is None else example, str(path))


def made_up(columns: Sequence[str]) -> pd.DataFrame:
    """A row for a prompt of these columns."""
    return pd.DataFrame({name: [MADE_UP] for name in columns})


def as_example(rows: pd.DataFrame) -> Any:
    """The first of some rows, in the form that their signature has: a text alone where there is one column."""
    return rows.iloc[:1, 0].tolist() if rows.shape[1] == 1 else rows.head(1)
