"""What a deployer asks for: the limits that a model must keep, and what is to be best among those that do.

A search looks for a model that keeps them, and a comparison recommends one; a gate (`gates.py`) also asks where numbers
come from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.measurement import Estimate, Measurements

OBJECTIVES = {
    "throughput": {"text-classification": names.SPEEDUP, "text-generation": names.GENERATION_SPEEDUP},
    "latency": {"text-classification": names.LATENCY_SPEEDUP, "text-generation": names.NEXT_TOKEN_SPEEDUP},
    "size": {"text-classification": names.DISK, "text-generation": names.DISK},
}
"""The metric behind each, by task: ratios to the baseline of the same run, so that trials of another hour compare."""


@dataclass(frozen=True)
class Wanted:
    """The question: limits (None asks nothing), the objective, and the batch that is asked about, where there is
    one."""

    max_quality_drop: float | None = None
    min_speedup: float | None = None
    max_latency_p95_ms: float | None = None
    max_size_mib: float | None = None
    task: str = "text-classification"
    objective: str = "throughput"
    batch_size: int | None = None
    """Texts in a call; None: what the token budget makes of the data."""
    length: int | None = None
    """Tokens of each of them."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective={self.objective!r}: write one of {', '.join(OBJECTIVES)}")
        if (self.batch_size is None) != (self.length is None):
            raise ConfigError("batch_size and length ask about one call together: give both or none")
        if self.batch_size is not None and self.task != "text-classification":
            raise ConfigError("batch_size and length are for text-classification; leave them out")

    @property
    def metric(self) -> str:
        """What is to be best."""
        return OBJECTIVES["size"][self.task] if self.objective == "size" else self._ratio(self.objective)

    @property
    def limits(self) -> dict[str, float]:
        """Those that are given, by option."""
        every = ("max_quality_drop", "min_speedup", "max_latency_p95_ms", "max_size_mib")
        return {option: getattr(self, option) for option in every if getattr(self, option) is not None}

    def score(self, measured: Measurements, end: str = "value") -> float:
        """Larger is better; `end` takes an end of the interval."""
        found = measured[self.metric]
        value = float(getattr(found, end)) if isinstance(found, Estimate) else found
        return -value if self.objective == "size" else value

    def missed(self, measured: Measurements) -> dict[str, "Missed"]:
        """The limits that are not proven to be kept, by option: an end of an interval beyond the limit fails, and so
        does what was not measured."""
        latency = names.LATENCY_P95 if self.batch_size is None else names.ASKED_LATENCY
        ends = {
            "max_quality_drop": -_end(measured, names.QUALITY_CHANGE, "low"),
            "min_speedup": _end(measured, self._ratio("throughput"), "low"),
            "max_latency_p95_ms": _end(measured, latency, "high"),
            "max_size_mib": _end(measured, names.DISK, "high"),
        }
        asked = {
            option: Missed(limit, ends[option], at_least=option == "min_speedup")
            for option, limit in self.limits.items()
        }
        # written so that a NaN, which compares with nothing, is missed
        return {option: each for option, each in asked.items() if not each.over <= 0}

    def asks_of_speed(self) -> "Wanted":
        """The same without quality: what can be judged before any training."""
        return replace(self, max_quality_drop=None)

    def said(self) -> str:
        """The limits in words."""
        return ", ".join(f"{option} {limit:g}" for option, limit in self.limits.items()) or "no limits"

    def _ratio(self, objective: str) -> str:
        """To the baseline: of the calls that are asked about, where there are any."""
        return names.ASKED_SPEEDUP if self.batch_size is not None else OBJECTIVES[objective][self.task]


@dataclass(frozen=True)
class Missed:
    """A limit, and the end of the interval that lies beyond it."""

    limit: float
    found: float
    at_least: bool = False
    """The limit is the least that is allowed, and not the most."""

    @property
    def over(self) -> float:
        """How far beyond the limit, in its unit; NaN where it was not measured."""
        return self.limit - self.found if self.at_least else self.found - self.limit

    @property
    def by(self) -> float:
        """In units of the limit, so that several can be added; finite."""
        return self.over / max(abs(self.limit), 1e-3) if math.isfinite(self.found) else 1e3

    def said(self, option: str) -> str:
        if not math.isfinite(self.found):
            return f"{option}={self.limit:g} could not be measured"
        return f"{option}={self.limit:g} is missed by {self.over:.4g} ({self.found:.4g} at the interval's end)"


def said_missed(missed: Mapping[str, Missed]) -> str:
    """All of them in words."""
    return "; ".join(each.said(option) for option, each in missed.items())


def distance(missed: Mapping[str, Missed]) -> float:
    """How far from keeping all limits; 0 where they are kept."""
    return sum(each.by for each in missed.values())


def _end(measured: Measurements, name: str, end: str) -> float:
    found = measured.get(name, math.nan)
    return float(getattr(found, end)) if isinstance(found, Estimate) else float(found)
