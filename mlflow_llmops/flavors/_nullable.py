"""Columns that may hold nulls, in a form that MLflow's Spark UDF leaves them in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


class _Kept:
    """MLflow's UDF casts each column to NumPy's type, where a null is 'None', True, or an error that fails the job."""

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        if isinstance(dtype, np.dtype | type) and dtype != np.dtype(object) and self.isna().any():  # type: ignore[attr-defined]
            return self
        return super().astype(dtype, copy)  # type: ignore[misc]


class _Integers(_Kept, pd.arrays.IntegerArray):
    pass


class _Booleans(_Kept, pd.arrays.BooleanArray):
    pass


class _Strings(_Kept, pd.arrays.ArrowStringArray):
    def map(self, mapper: Any, na_action: Any = None) -> Any:
        """Where one string is the whole answer, the UDF calls `str` on each."""
        called = getattr(mapper, "func", mapper)  # pandas hands on a partial
        return super().map(mapper, "ignore" if called is str else na_action)


def nullable(values: Sequence[Any], type_: str) -> pd.Series:
    """`values` as a column of MLflow's `type_`, None for a null."""
    missing = np.array([value is None for value in values], dtype=bool)
    if type_ == "string":
        return pd.Series(_Strings(pa.array(list(values), type=pa.large_string())))
    if type_ == "long":
        return pd.Series(_Integers(np.array([value or 0 for value in values], dtype=np.int64), missing))
    if type_ == "boolean":
        return pd.Series(_Booleans(np.array([bool(value) for value in values], dtype=bool), missing))
    if type_ == "double":
        return pd.Series(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return pd.Series(column)
