"""The texts in whatever MLflow hands over."""

from typing import Any

import pandas as pd


def column(model_input: Any) -> list[Any]:
    """One text, a list, a Series, an array or the first column of a table, as a list; nulls stay."""
    if isinstance(model_input, str):
        return [model_input]
    if isinstance(model_input, pd.DataFrame):
        return model_input.iloc[:, 0].tolist()
    return list(model_input)
