"""The named columns of a prompt in whatever MLflow hands over."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mlflow_llmops.errors import DataError
from mlflow_llmops.flavors._column import column


def rows_of(model_input: Any, columns: Sequence[str]) -> list[dict[str, str] | str]:
    """The values of `columns` in each row, as texts; what is wrong with it, for a row with a null.

    A single column may have any name, or none.

    Raises DataError, naming it, for a column that is not there.
    """
    if len(columns) == 1 and not (isinstance(model_input, pd.DataFrame) and columns[0] in model_input):
        table = {columns[0]: column(model_input)}
    else:
        frame = pd.DataFrame([model_input] if isinstance(model_input, dict) else model_input)
        missing = [name for name in columns if name not in frame]
        if missing:
            have = ", ".join(map(str, frame))
            raise DataError(f"the input has no column {missing[0]}, which the prompt names; it has: {have}")
        table = {name: frame[name].tolist() for name in columns}
    return [_row(dict(zip(table, values, strict=True))) for values in zip(*table.values(), strict=True)]


def _row(values: dict[str, Any]) -> dict[str, str] | str:
    null = next((name for name, value in values.items() if pd.api.types.is_scalar(value) and pd.isna(value)), None)
    return f"the column {null} is null" if null is not None else {name: str(value) for name, value in values.items()}
