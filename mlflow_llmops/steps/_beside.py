"""What some methods have measured beside what all have: zeros, pieces of texts, and how long an input must be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.pieces import finer_texts
from mlflow_llmops.measure.size import compressed_mib, measure_sparsity
from mlflow_llmops.methods.method import Method
from mlflow_llmops.steps._long_inputs import measure_long_inputs
from mlflow_llmops.tracking.loaded import LoadedModel


@dataclass(frozen=True)
class Beside:
    """Of the candidate and of the baseline, and what the verdict says of it."""

    now: Measurements
    was: Measurements
    said: str = ""


def measure_beside(
    method: Method,
    baseline: LoadedModel,
    candidate: LoadedModel,
    data: Splits,
    seconds: float,
    folder: Callable[[str], Path],
) -> Beside:
    """Log what does not fit into numbers to the active run. `folder` makes an empty folder of a name."""
    now: Measurements = {}
    was: Measurements = {}
    said = ""
    if method.sparsifies and candidate.folder is not None and baseline.folder is not None:
        now |= measure_sparsity(candidate.model, candidate.folder)
        was |= measure_sparsity(baseline.model, baseline.folder)
        now[names.COMPRESSED_RATIO] = compressed_mib(candidate.folder) / compressed_mib(baseline.folder)
    if method.cuts_vocabulary:
        now |= finer_texts(baseline.model, candidate.model, data.test.texts)
    if method.for_long_inputs:
        found = measure_long_inputs(method, baseline.model, data, seconds, folder)
        now |= found.measured
        said = found.said
    return Beside(now, was, said)
