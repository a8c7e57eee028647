"""Whether a candidate is proven to be good enough. A missing measurement, or one that does not apply, fails."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_llmops import names


@dataclass(frozen=True)
class Limits:
    """What a version must keep to take a place; `None` asks nothing."""

    max_quality_drop: float | None = 0.02
    min_speedup: float | None = 1.0
    max_latency_p95_ms: float | None = None


@dataclass(frozen=True)
class Reason:
    """One check: what was asked, what was measured, and whether that proves it."""

    check: str
    measured: str
    passed: bool
    about_evidence: bool = False
    """It failed for want of evidence that applies, so measuring again may tell; a bound that was missed stays so."""


@dataclass(frozen=True)
class Evidence:
    """A candidate's metrics as stored, what they were measured on, and against what."""

    metrics: Mapping[str, float]
    data_fingerprint: str
    hardware: str
    baseline: str
    """The baseline in words, for the reason that is stored."""
    baseline_counts: bool
    """It is another version that this one was made from or is to replace, so that its ratios say something."""


def judge(evidence: Evidence, limits: Limits, data_fingerprint: str, hardware: str) -> list[Reason]:
    """Every check with its outcome; the candidate passes when all of them do.

    An interval that reaches over the bound fails: what is not proven is refused. `data_fingerprint` is that of the
    data the candidate was made with; unknown ones match nothing.
    """
    same = bool(data_fingerprint) and evidence.data_fingerprint == data_fingerprint
    said = evidence.data_fingerprint or "unknown"
    # measuring again finds the data that are known, not those that are not
    reasons = [Reason("measured on the same data", said, same, not same and bool(data_fingerprint))]
    metrics = evidence.metrics
    if limits.max_quality_drop is not None or limits.min_speedup is not None:
        counts = evidence.baseline_counts
        reasons.append(Reason("compared with another version", evidence.baseline, counts, not counts))
    if limits.max_quality_drop is not None:
        floor = -limits.max_quality_drop
        reasons.append(
            _bound(
                metrics,
                names.QUALITY_CHANGE,
                names.LOW,
                f"quality change at least {floor:+.3g}",
                lambda v: v >= floor,
            )
        )
    timed = []
    if limits.min_speedup is not None:
        least = limits.min_speedup
        timed.append(_bound(metrics, names.SPEEDUP, names.LOW, f"speed-up at least {least:g}", lambda v: v >= least))
    if limits.max_latency_p95_ms is not None:
        most = limits.max_latency_p95_ms
        timed.append(
            _bound(
                metrics,
                names.LATENCY_P95,
                names.HIGH,
                f"p95 latency at most {most:g} ms",
                lambda v: v <= most,
            )
        )
    if timed:
        same = bool(evidence.hardware) and evidence.hardware == hardware
        reasons.append(Reason("timed on this hardware", evidence.hardware or "unknown", same, not same))
    return [*reasons, *timed]


def _bound(metrics: Mapping[str, float], name: str, end: str, check: str, holds) -> Reason:  # type: ignore[no-untyped-def]
    worst, value = metrics.get(name + end), metrics.get(name)
    if worst is None or value is None or not math.isfinite(worst) or not math.isfinite(value):
        return Reason(check, f"{name} was not measured", False, True)
    return Reason(check, f"{value:.4g}, {end.removeprefix('_')} end of the interval {worst:.4g}", bool(holds(worst)))
