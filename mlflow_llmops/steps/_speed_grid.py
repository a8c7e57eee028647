"""Speed by batch size and length, measured and logged beside the run's other measurements."""

from collections.abc import Mapping

import mlflow

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import Times
from mlflow_llmops.measure.speed_grid import measure_speed_grid
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.speed_grid import GridReport

MOST = 6.0
"""A grid may take so many times its seconds: 32 texts of 256 tokens are some thousand times one of 16."""


def log_speed_grid(
    models: Mapping[str, TextModel], times: Mapping[str, Times], data: Splits, seconds: float
) -> Measurements:
    """Log table, picture and file to the active run; gives the candidate's speed-ups by cell.

    The first of `models` is the baseline and the last the candidate; one between them is the baseline in the
    candidate's runtime. `times` are what the token-budget engine took.
    """
    baseline, *control, candidate = models
    grid = measure_speed_grid(models, data.test.texts, seconds, most=MOST * seconds)
    report = GridReport(grid, times, baseline, candidate, *control)
    mlflow.log_text(report.markdown(), names.SPEED_GRID_TABLE)
    mlflow.log_dict(report.as_json(), names.SPEED_GRID)
    mlflow.log_figure(report.png(), names.SPEED_GRID_PNG)
    return grid.speedups(baseline, candidate)
