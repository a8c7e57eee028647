"""What is not proven is refused: each check passes once and fails once for each reason."""

from dataclasses import replace

import pytest

from mlflow_llmops.measure.gates import Evidence, Limits, judge

METRICS = {
    "quality/change": -0.005,
    "quality/change_low": -0.015,
    "quality/change_high": 0.005,
    "ratio/speedup": 1.5,
    "ratio/speedup_low": 1.4,
    "ratio/speedup_high": 1.6,
    "latency/p95_ms": 8.0,
    "latency/p95_ms_low": 7.0,
    "latency/p95_ms_high": 9.0,
}
LIMITS = Limits(max_quality_drop=0.02, min_speedup=1.2, max_latency_p95_ms=10.0)
PROVEN = Evidence(METRICS, "data1", "cpu1", "version 1", True)
QUALITY, SPEED, LATENCY = (
    "quality change at least -0.02",
    "speed-up at least 1.2",
    "p95 latency at most 10 ms",
)
DATA, HARDWARE, BASELINE = "measured on the same data", "timed on this hardware", "compared with another version"


def failed(evidence: Evidence, limits: Limits = LIMITS, data: str = "data1", hardware: str = "cpu1") -> set[str]:
    return {reason.check for reason in judge(evidence, limits, data, hardware) if not reason.passed}


def test_proven_evidence_passes_every_check():
    reasons = judge(PROVEN, LIMITS, "data1", "cpu1")
    assert {reason.check for reason in reasons} == {DATA, BASELINE, QUALITY, HARDWARE, SPEED, LATENCY}
    assert all(reason.passed for reason in reasons)


@pytest.mark.parametrize(
    ("metric", "check"), [("quality/change", QUALITY), ("ratio/speedup", SPEED), ("latency/p95_ms", LATENCY)]
)
def test_a_missing_measurement_fails_its_check_and_says_so(metric, check):
    end = "_high" if metric == "latency/p95_ms" else "_low"
    for gone in (metric, metric + end):
        evidence = replace(PROVEN, metrics={name: v for name, v in METRICS.items() if name != gone})
        assert failed(evidence) == {check}
        said = {reason.check: reason.measured for reason in judge(evidence, LIMITS, "data1", "cpu1")}
        assert said[check] == f"{metric} was not measured"


@pytest.mark.parametrize(
    ("end", "value", "check"),
    [
        ("quality/change_low", -0.021, QUALITY),
        ("ratio/speedup_low", 1.19, SPEED),
        ("latency/p95_ms_high", 10.1, LATENCY),
        ("quality/change_low", float("nan"), QUALITY),
        ("ratio/speedup_low", float("nan"), SPEED),
        ("latency/p95_ms_high", float("nan"), LATENCY),
    ],
)
def test_an_interval_that_reaches_over_the_bound_fails(end, value, check):
    assert failed(replace(PROVEN, metrics={**METRICS, end: value})) == {check}


@pytest.mark.parametrize(
    ("end", "value"),
    [("quality/change_low", -0.02), ("ratio/speedup_low", 1.2), ("latency/p95_ms_high", 10.0)],
)
def test_the_bound_itself_passes(end, value):
    assert failed(replace(PROVEN, metrics={**METRICS, end: value})) == set()


def test_the_other_end_of_an_interval_is_not_asked():
    wide = {**METRICS, "quality/change_high": 0.9, "ratio/speedup_high": 90.0, "latency/p95_ms_low": 0.1}
    assert failed(replace(PROVEN, metrics=wide)) == set()


@pytest.mark.parametrize(("theirs", "ours"), [("data2", "data1"), ("", "data1"), ("data1", ""), ("", "")])
def test_other_or_unknown_data_fail(theirs, ours):
    assert failed(replace(PROVEN, data_fingerprint=theirs), data=ours) == {DATA}


@pytest.mark.parametrize(("theirs", "ours"), [("cpu2", "cpu1"), ("", "cpu1"), ("", "")])
def test_other_or_unknown_hardware_fails_a_timed_check(theirs, ours):
    evidence = replace(PROVEN, hardware=theirs)
    assert failed(evidence, hardware=ours) == {HARDWARE}
    untimed = Limits(max_quality_drop=0.02, min_speedup=None, max_latency_p95_ms=None)
    assert failed(evidence, untimed, hardware=ours) == set()


def test_a_ratio_to_a_baseline_that_does_not_count_proves_nothing():
    beside = replace(PROVEN, baseline="version 9, which is nobody's", baseline_counts=False)
    assert failed(beside) == {BASELINE}
    said = {reason.check: reason.measured for reason in judge(beside, LIMITS, "data1", "cpu1")}
    assert said[BASELINE] == "version 9, which is nobody's"
    assert failed(beside, Limits(None, None, 10.0)) == set()  # a latency alone is no ratio


def test_what_is_no_number_proves_nothing():
    nothing = {name: float("nan") for name in PROVEN.metrics}
    assert failed(replace(PROVEN, metrics=nothing)) >= {LATENCY}


def test_no_limits_ask_for_nothing():
    assert [reason.check for reason in judge(PROVEN, Limits(None, None, None), "data1", "")] == [DATA]
