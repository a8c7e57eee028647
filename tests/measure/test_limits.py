"""A limit is kept only where the interval's end keeps it, and one that is missed says by how much."""

import math

import pytest

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.limits import Wanted, distance, said_missed
from mlflow_llmops.measure.measurement import Estimate

MEASURED = {
    names.QUALITY_CHANGE: Estimate(-0.01, -0.03, 0.01),
    names.LATENCY_P95: Estimate(5.0, 4.0, 9.0),
    names.ASKED_LATENCY: Estimate(50.0, 40.0, 90.0),
    names.DISK: 20.0,
    names.SPEEDUP: Estimate(3.0, 2.5, 3.5),
    names.LATENCY_SPEEDUP: Estimate(2.0, 1.5, 2.5),
    names.ASKED_SPEEDUP: Estimate(4.0, 3.5, 4.5),
}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"max_quality_drop": 0.03}, True),
        ({"max_quality_drop": 0.029}, False),  # 0.01 is the value, and 0.03 the end
        ({}, True),
        ({"min_speedup": 2.5}, True),
        ({"min_speedup": 2.6}, False),  # 3 is the value
        ({"min_speedup": 3.5, "batch_size": 8, "length": 64}, True),
        ({"min_speedup": 3.6, "batch_size": 8, "length": 64, "objective": "size"}, False),
        ({"min_speedup": 1.0, "task": "text-generation"}, False),  # of what a causal model writes, not measured here
        ({"max_latency_p95_ms": 9.0}, True),
        ({"max_latency_p95_ms": 8.9}, False),
        ({"max_latency_p95_ms": 89.0, "batch_size": 8, "length": 64}, False),
        ({"max_size_mib": 20.0}, True),
        ({"max_size_mib": 19.9}, False),
    ],
)
def test_the_end_of_the_interval_decides(options, kept):
    assert (not Wanted(**options).missed(MEASURED)) == kept
    assert (distance(Wanted(**options).missed(MEASURED)) == 0) == kept


@pytest.mark.parametrize("unknown", [{}, {names.LATENCY_P95: Estimate(5.0, 4.0, math.inf)}])
def test_what_was_not_measured_is_missed(unknown):
    missed = Wanted(max_latency_p95_ms=1e9).missed(unknown)
    assert said_missed(missed) == "max_latency_p95_ms=1e+09 could not be measured"
    assert math.isfinite(distance(missed)) and distance(missed) > 1


def test_it_says_by_how_much_and_the_nearer_is_nearer():
    near, far = (Wanted(max_size_mib=limit).missed(MEASURED) for limit in (19.0, 10.0))
    assert "max_size_mib=19 is missed by 1 (20 at the interval's end)" in said_missed(near)
    assert distance(near) < distance(far)
    slow = Wanted(min_speedup=4.0).missed(MEASURED)
    assert said_missed(slow) == "min_speedup=4 is missed by 1.5 (2.5 at the interval's end)"
    assert 0 < distance(Wanted(min_speedup=3.0).missed(MEASURED)) < distance(slow)


def test_each_objective_has_its_metric_and_larger_is_better():
    assert Wanted().score(MEASURED) == 3.0
    assert Wanted(objective="latency").score(MEASURED) == 2.0
    assert Wanted(batch_size=8, length=64).score(MEASURED) == 4.0
    assert Wanted(objective="size").score({names.DISK: 1.0}) > Wanted(objective="size").score({names.DISK: 2.0})
    assert Wanted().score(MEASURED, "high") == 3.5


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("text-classification", {"objective": "speed"}, "objective='speed': write one of throughput, latency, size"),
        ("text-classification", {"batch_size": 8}, "give both or none"),
        ("text-generation", {"batch_size": 8, "length": 16}, "are for text-classification"),
    ],
)
def test_a_question_that_cannot_be_asked(task, options, said):
    with pytest.raises(ConfigError, match=said):
        Wanted(task=task, **options)
