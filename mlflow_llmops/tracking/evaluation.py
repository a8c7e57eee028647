"""Evaluate any pyfunc of texts: the same measures as our own runs, for `mlflow.models.evaluate`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_llmops import names
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure import quality
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import measure_speed
from mlflow_llmops.measure.wording import wording
from mlflow_llmops.tracking.reload_rows import COSTS
from mlflow_llmops.tracking.signature import LABEL, SCORE

SECONDS = 5.0


def evaluate_pyfunc(
    model: Any,
    features: pd.DataFrame | np.ndarray,
    truth: Sequence[str],
    predictions: Any = None,
    seconds: float | None = None,
) -> Measurements:
    """Quality of labels against `truth`, and what it cost where the answers say so; throughput and latency, measured
    for `seconds`, where there is a model and not its predictions alone. What may ask an endpoint, which is paid, is not
    timed unless `seconds` says so.

    Raises DataError where the features are no texts.
    """
    texts = _texts(model, features)
    answers = _table(model.predict(_given(texts)) if model is not None else predictions)
    labels = labels_of(answers)
    measured = quality.classification(list(truth), labels) | costs_of(answers)
    if {LABEL, SCORE} <= set(answers):
        measured[names.CALIBRATION_ERROR] = quality.calibration_error(truth, labels, answers[SCORE])
    if seconds is None:
        seconds = 0.0 if asks_an_endpoint(model) else SECONDS
    return measured | _times(model, texts, seconds)


def evaluate_writer(
    model: Any,
    features: pd.DataFrame | np.ndarray,
    wanted: Sequence[str] | None,
    predictions: Any = None,
    seconds: float | None = None,
) -> tuple[Measurements, list[dict[str, Any]]]:
    """How near the answers come to the `wanted` ones, where there are any, rows that failed and what it cost; and the
    rows: what was asked, answered, wanted. Timed only where `seconds` says so.

    Raises DataError where the features are no texts.
    """
    texts = _texts(model, features)
    answers = _table(model.predict(_given(texts)) if model is not None else predictions)
    written = [None if pd.isna(answer) else str(answer) for answer in answers.iloc[:, 0]]
    measured = costs_of(answers) | {names.QUALITY_TEXTS: float(len(written))}
    measured.setdefault(names.FAILED_ROWS, float(written.count(None)))
    rows = [{"asked": asked, "answer": answer} for asked, answer in zip(texts, written, strict=True)]
    for name in ("error", "sources"):
        for row, value in zip(rows, answers.get(name, ()), strict=False):
            row[name] = list(value) if isinstance(value, list | np.ndarray) else None if pd.isna(value) else value
    if wanted is not None:
        measured |= wording(list(wanted), written)
        rows = [{**row, "wanted": each} for row, each in zip(rows, wanted, strict=True)]
    return measured | _times(model, texts, seconds or 0.0), rows


def _texts(model: Any, features: pd.DataFrame | np.ndarray) -> list[Any]:
    """One text a row; a row as a dict where the model takes several columns."""
    frame = pd.DataFrame(features)
    schema = model.metadata.get_input_schema() if model is not None and model.metadata else None
    columns = schema.input_names() if schema and schema.has_input_names() and len(schema.inputs) > 1 else None
    if columns is not None:
        missing = [name for name in columns if name not in frame]
        if missing:
            have = ", ".join(map(str, frame))
            raise DataError(f"evaluators=llmops: the data has no column {missing[0]}, which the model takes: {have}")
        return list(frame[columns].to_dict(orient="records"))
    texts = frame.iloc[:, 0].tolist() if frame.shape[1] else []
    if frame.shape[1] != 1 or not all(isinstance(text, str) for text in texts):
        raise DataError(f"evaluators=llmops takes one column of texts; the data has: {', '.join(map(str, frame))}")
    return texts


def _given(texts: Sequence[Any]) -> Any:
    """As a pyfunc takes them."""
    return pd.DataFrame(list(texts)) if texts and isinstance(texts[0], dict) else list(texts)


def _table(answers: Any) -> pd.DataFrame:
    return answers if isinstance(answers, pd.DataFrame) else pd.DataFrame({"answer": list(answers)})


def _times(model: Any, texts: Sequence[Any], seconds: float) -> Measurements:
    if model is None or not seconds:
        return {}
    predict = _forgetful(model).predict

    def score(sample: Sequence[Any]) -> object:
        return predict(_given([dict(row) if isinstance(row, tuple) else row for row in sample]))

    hashable: list[Any] = [tuple(text.items()) if isinstance(text, dict) else text for text in texts]
    times = measure_speed({"model": score}, hashable, len, seconds)["model"].measurements()
    times.pop(names.TOKENS_PER_S)  # a pyfunc does not say how many tokens it saw
    return times


def _forgetful(model: Any) -> Any:
    """The same without the answers that its process remembers: they take no time."""
    raw = model.get_raw_model() if _kind(model) else model
    return raw.forgetful() if hasattr(raw, "forgetful") else model


def asks_an_endpoint(model: Any) -> bool:
    """Whether a call of the pyfunc may be paid."""
    return _kind(model) in names.ENDPOINT_KINDS


def _kind(model: Any) -> Any:
    described = getattr(getattr(model, "metadata", None), "metadata", None) or {}
    return described.get("llmops_kind")


def costs_of(answers: pd.DataFrame) -> Measurements:
    """Tokens, costs and failed rows, added up; nothing where the answers do not say them."""
    found: dict[str, Any] = {}
    if set(COSTS) <= set(answers):
        sums = answers[list(COSTS)].sum(min_count=1)
        found = dict(zip((names.CALL_PROMPT_TOKENS, names.CALL_COMPLETION_TOKENS, names.COST), sums, strict=True))
    if "error" in answers:
        found[names.FAILED_ROWS] = answers["error"].notna().sum()
    return {name: float(value) for name, value in found.items() if pd.notna(value)}


def labels_of(answers: Any) -> list[str]:
    """The column `label`, or the first one."""
    if isinstance(answers, pd.DataFrame):
        answers = answers[LABEL] if LABEL in answers else answers.iloc[:, 0]
    return [str(label) for label in answers]
