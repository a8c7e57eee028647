"""The texts in whatever MLflow hands over."""

from typing import Any

import pandas as pd

from mlflow_llmops.errors import DataError


def column(model_input: Any) -> list[Any]:
    """One text, a list, a Series, an array or the first column of a table, as a list; nulls stay."""
    if isinstance(model_input, str):
        return [model_input]
    if isinstance(model_input, pd.DataFrame):
        return model_input.iloc[:, 0].tolist()
    return list(model_input)


def texts_of(model_input: Any) -> list[Any]:
    """The same for a model of texts.

    Raises DataError for what is neither a text nor a null: MLflow lets bytes and lists pass, and a null for each would
    look like an answer.
    """
    texts = column(model_input)
    for i, text in enumerate(texts):
        if not (isinstance(text, str) or (pd.api.types.is_scalar(text) and pd.isna(text))):
            raise DataError(
                f"row {i} holds {type(text).__name__}, and the model takes texts; name a text column, or write it as "
                "text"
            )
    return texts
