"""Rule 5 for what asks an endpoint: a fresh process must send the same requests, whatever comes back.

The process is this file: it loads the artifact as a pyfunc, lists what it would send, and gives the rows it predicts.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlflow_llmops.errors import ArtifactMismatch
from mlflow_llmops.tracking.reload import in_fresh_process, peak_mib

COSTS = ("prompt_tokens", "completion_tokens", "cost")
"""Columns that say what a row cost now, and are no part of the answer."""


@dataclass(frozen=True)
class Rows:
    """What a model made of some rows."""

    requests: tuple[str, ...]
    """A hash of what it sends for each."""
    rows: tuple[dict[str, Any], ...]
    peak_mib: float = 0.0


def rows_of(model: Any, frame: pd.DataFrame) -> Rows:
    """`model` has `predict` and `requests`."""
    requests = model.requests(frame)
    table = model.predict(frame)
    return Rows(tuple(requests), tuple(json.loads(table.to_json(orient="records"))))


def rows_of_fresh_process(artifact: Path, frame: pd.DataFrame) -> Rows:
    """The same of the artifact, loaded in a new Python process. Raises ArtifactMismatch where that fails."""
    asked = json.loads(frame.to_json(orient="split", index=False))
    stored = in_fresh_process("mlflow_llmops.tracking.reload_rows", artifact, asked)
    return Rows(tuple(stored["requests"]), tuple(stored["rows"]), stored["peak_mib"])


def check_rows(expected: Rows, reloaded: Rows, repeatable: bool) -> float:
    """The share of rows that are the same. `repeatable`: they must all be, since nothing in the model is random.

    Raises ArtifactMismatch where the requests, the columns or, if repeatable, the answers differ, or a row failed.
    """
    if expected.requests != reloaded.requests:
        differ = sum(mine != theirs for mine, theirs in zip(expected.requests, reloaded.requests, strict=False))
        raise ArtifactMismatch(
            f"the saved model, loaded in a fresh process, sends other requests for {differ} of "
            f"{len(expected.requests)} rows; not registered"
        )
    if [list(row) for row in expected.rows] != [list(row) for row in reloaded.rows]:
        raise ArtifactMismatch("the saved model, loaded in a fresh process, gives other columns; not registered")
    failed = next((row["error"] for row in reloaded.rows if row.get("error")), None)
    if failed:
        raise ArtifactMismatch(f"the saved model, loaded in a fresh process, failed: {failed}; not registered")
    same = [_answer(mine) == _answer(theirs) for mine, theirs in zip(expected.rows, reloaded.rows, strict=True)]
    if repeatable and not all(same):
        raise ArtifactMismatch(
            f"the saved model, loaded in a fresh process, answers {same.count(False)} of {len(same)} rows otherwise; "
            "not registered"
        )
    return sum(same) / len(same)


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in COSTS}


def _answer_question(artifact: str, question: str, answer: str) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(artifact)
    asked = json.loads(Path(question).read_text(encoding="utf-8"))
    frame = pd.DataFrame(asked["data"], columns=asked["columns"])
    rows: Sequence[dict[str, Any]] = json.loads(model.predict(frame).to_json(orient="records"))
    found = {"requests": model.get_raw_model().requests(frame), "rows": rows, "peak_mib": peak_mib()}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    _answer_question(*sys.argv[1:])
