"""What is recommended under which limits, and why the others lost."""

import json
import re

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.tracking.choice import choose, fronts, ranked_by
from mlflow_llmops.tracking.comparison import Comparison
from mlflow_llmops.tracking.report import Row


def row(label: str, accuracy: float, change: float, speed: float, p95: float, disk: float) -> Row:
    def about(value: float, by: float) -> Estimate:
        return Estimate(value, value - by, value + by)

    return Row(
        label,
        {
            names.ACCURACY: about(accuracy, 0.01),
            names.QUALITY_CHANGE: about(change, 0.005),
            names.TEXTS_PER_S: about(100 * speed, 1),
            names.SPEEDUP: about(speed, 0.01),
            names.LATENCY_P95: about(p95, 0.5),
            names.DISK: disk,
        },
    )


ROWS = (
    row("teacher", 0.90, 0.0, 1.0, 10, 40),
    row("pruned", 0.89, -0.01, 2.0, 6, 20),
    row("int8", 0.88, -0.02, 4.0, 3, 10),
    row("worse", 0.87, -0.03, 1.5, 7, 30),
)


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({}, "int8"),
        ({"max_quality_drop": 0.025}, "int8"),
        ({"max_quality_drop": 0.024}, "pruned"),  # it lies within the interval
        ({"max_quality_drop": 0.001}, "teacher"),
        ({"max_latency_p95_ms": 3.4}, None),
        ({"max_latency_p95_ms": 3.5}, "int8"),
        ({"max_size_mib": 9.0}, None),
        ({"min_speedup": 3.98}, "int8"),
        ({"min_speedup": 1.98, "max_quality_drop": 0.02}, "pruned"),
        ({"min_speedup": 4.0}, None),
    ],
)
def test_the_fastest_that_is_proven_to_keep_the_limits(limits, best):
    choice = choose(ROWS, Wanted(**limits))
    assert (choice.recommended.label if choice.recommended else None) == best
    assert set(choice.lost) == {each.label for each in ROWS} - {best}


def test_it_says_what_was_missed_by_how_much_and_which_is_nearest():
    choice = choose(ROWS, Wanted(max_size_mib=9.0, max_quality_drop=0.02))
    assert "no model keeps the limits" in choice.said and "nearest is int8" in choice.said
    assert choice.lost["int8"] == (
        "max_quality_drop=0.02 is missed by 0.005 (0.025 at the interval's end); "
        "max_size_mib=9 is missed by 1 (10 at the interval's end)"
    )
    assert "int8 is at least as good" in choose(ROWS, Wanted()).lost["worse"]


def test_what_was_not_measured_fails_a_limit_and_changes_the_ranking():
    endpoint = Row("endpoint", {names.ACCURACY: 0.95, names.TEXTS_PER_S: 1e6})
    rows = (*ROWS, endpoint)
    assert ranked_by(ROWS) == names.SPEEDUP and ranked_by(rows) == names.TEXTS_PER_S
    assert choose(rows, Wanted()).recommended is endpoint
    limited = choose(rows, Wanted(max_size_mib=50, max_quality_drop=0.5, max_latency_p95_ms=50))
    assert limited.recommended is ROWS[2]
    assert limited.lost["endpoint"].count("could not be measured") == 3


def test_each_front_has_those_that_none_beats_in_both():
    assert fronts(ROWS) == {
        "throughput": ["teacher", "pruned", "int8"],
        "size": ["int8", "pruned", "teacher"],
        "latency": ["int8", "pruned", "teacher"],
    }


def test_page_markdown_and_json_say_the_same_and_need_no_network():
    report = Comparison(ROWS, ("<b> & note",), "data", "machine", Wanted(max_quality_drop=0.024))
    said = report.as_json()
    json.dumps(said)
    assert said["recommended"] == "pruned"
    page, text = report.page(), report.markdown()
    for shown in (page, text):
        assert "pruned is the fastest that keeps the limits" in shown
        assert "4.00 ± 0.01" in shown and "What lost, and why" in shown
    assert "&lt;b&gt; &amp; note" in page
    assert '<tr class="best">' in page.replace("class=best", 'class="best"')
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="?http', page)
    assert page.count("Plotly.newPlot(") == 1
