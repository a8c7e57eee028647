"""One measured number with its interval, and a table of them under the names that the tracking store keeps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_llmops import names


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval; the ends are the value where it is counted, not estimated."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit; `factor` must be positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


Measurements = dict[str, "Estimate | float"]
"""From a metric's name (`names.py`) to what was measured."""


def flat(measurements: Measurements) -> dict[str, float]:
    """As MLflow stores them: each estimate becomes its value and `_low` and `_high`. Values must be finite."""
    metrics: dict[str, float] = {}
    for name, measured in measurements.items():
        if isinstance(measured, Estimate):
            metrics |= {
                name: measured.value,
                name + names.LOW: measured.low,
                name + names.HIGH: measured.high,
            }
        else:
            metrics[name] = float(measured)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def from_flat(metrics: Mapping[str, float]) -> Measurements:
    """Back from what `flat` made of finite values: an end that is not there was infinite."""
    ends = {name + end for name in metrics for end in (names.LOW, names.HIGH)} & metrics.keys()
    measured: Measurements = {}
    for name, value in metrics.items():
        if name not in ends:
            low, high = metrics.get(name + names.LOW), metrics.get(name + names.HIGH)
            counted = low is None and high is None
            measured[name] = (
                value
                if counted
                else Estimate(value, -math.inf if low is None else low, math.inf if high is None else high)
            )
    return measured
