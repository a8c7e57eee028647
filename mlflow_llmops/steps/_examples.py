"""The rows that are asked before a version is registered, and what came of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from rich.table import Table

from mlflow_llmops import names
from mlflow_llmops.data.load import read_rows
from mlflow_llmops.errors import DataError, ModelError
from mlflow_llmops.flavors._example import made_up
from mlflow_llmops.tracking.references import download
from mlflow_llmops.tracking.reload_rows import Rows, check_rows, rows_of, rows_of_fresh_process


def examples_of(path: str | None, columns: Sequence[str], count: int) -> pd.DataFrame:
    """The first `count` rows of a file with the columns of the prompt, or a made-up one.

    Raises DataError for a file or column that is not there.
    """
    if path is None:
        return made_up(columns)
    frame = read_rows(Path(path), "examples")
    missing = [name for name in columns if name not in frame]
    if missing:
        have = ", ".join(map(str, frame))
        raise DataError(f"examples={path}: there is no column {missing[0]}, which the prompt names; it has: {have}")
    rows = frame[list(columns)].dropna().head(count)
    if not len(rows):
        raise DataError(f"examples={path}: no row without a null; give a file with one")
    return rows.reset_index(drop=True)


def prove(model: Any, reference: str, examples: pd.DataFrame, repeatable: bool) -> tuple[Rows, str]:
    """The rows that the model in memory gives, and in words how a fresh process compared.

    Raises ModelError where a row fails, and ArtifactMismatch where the fresh process does not answer alike.
    """
    expected = rows_of(model, examples)
    failed = next((row["error"] for row in expected.rows if row.get("error")), None)
    if failed:
        raise ModelError(f"{failed}; an example was not answered, so nothing was registered")
    share = check_rows(expected, rows_of_fresh_process(download(reference), examples), repeatable)
    pairs = zip(examples.to_dict(orient="records"), expected.rows, strict=True)
    mlflow.log_dict({"examples": [{"asked": asked, "given": given} for asked, given in pairs]}, names.EXAMPLES)
    mlflow.log_metric(names.REPEATED, share)
    if share == 1:
        return expected, "same outputs"
    return expected, f"same requests and columns; the endpoint repeated {share:.0%} of its answers"


def examples_table(examples: pd.DataFrame, rows: Rows) -> Table:
    """For the terminal."""
    shown = Table(title="Examples", title_justify="left")
    names_ = [*examples.columns, *(name for name in rows.rows[0] if name != "error")]
    for name in names_:
        shown.add_column(str(name))
    for (_, asked), given in zip(examples.iterrows(), rows.rows, strict=True):
        row = {**asked.to_dict(), **given}
        shown.add_row(*(str(row[name])[:80] for name in names_))
    return shown
