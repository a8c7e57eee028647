"""Evaluate any pyfunc that labels texts: the same measures as our own runs, for `mlflow.models.evaluate`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_llmops import names
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure import quality
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import measure_speed
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
    """Quality against `truth`, and what it cost where the answers say so; throughput and latency, measured for
    `seconds`, where there is a model and not its predictions alone. An endpoint, which is paid, is not timed unless
    `seconds` says so.

    Raises DataError where the features are not one column of texts.
    """
    frame = pd.DataFrame(features)
    texts = frame.iloc[:, 0].tolist()
    if frame.shape[1] != 1 or not all(isinstance(text, str) for text in texts):
        raise DataError(f"evaluators=llmops takes one column of texts; the data has: {', '.join(map(str, frame))}")
    answers = model.predict(texts) if model is not None else predictions
    measured = quality.classification(list(truth), labels_of(answers))
    if isinstance(answers, pd.DataFrame):
        measured |= costs_of(answers)
        if {LABEL, SCORE} <= set(answers):
            measured[names.CALIBRATION_ERROR] = quality.calibration_error(truth, labels_of(answers), answers[SCORE])
    if seconds is None:
        seconds = 0.0 if asks_an_endpoint(model) else SECONDS
    if model is None or not seconds:
        return measured
    times = measure_speed({"model": model.predict}, texts, lambda sample: len(sample), seconds)["model"].measurements()
    times.pop(names.TOKENS_PER_S)  # a pyfunc does not say how many tokens it saw
    return {**measured, **times}


def asks_an_endpoint(model: Any) -> bool:
    """Whether each call of the pyfunc is paid."""
    described = getattr(getattr(model, "metadata", None), "metadata", None) or {}
    return described.get("llmops_kind") == "endpoint"


def costs_of(answers: pd.DataFrame) -> Measurements:
    """Tokens, costs and failed rows, added up; nothing where the answers do not say them."""
    if not set(COSTS) <= set(answers):
        return {}
    sums = answers[list(COSTS)].sum(min_count=1)
    found = dict(zip((names.CALL_PROMPT_TOKENS, names.CALL_COMPLETION_TOKENS, names.COST), sums, strict=True))
    found[names.FAILED_ROWS] = answers["error"].notna().sum()
    return {name: float(value) for name, value in found.items() if pd.notna(value)}


def labels_of(answers: Any) -> list[str]:
    """The column `label`, or the first one."""
    if isinstance(answers, pd.DataFrame):
        answers = answers[LABEL] if LABEL in answers else answers.iloc[:, 0]
    return [str(label) for label in answers]
