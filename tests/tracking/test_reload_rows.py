"""A fresh process that sends something else is refused; one that is answered otherwise is counted."""

import pytest

from mlflow_llmops.errors import ArtifactMismatch
from mlflow_llmops.tracking.reload_rows import Rows, check_rows

MINE = Rows(("a", "b"), ({"answer": "x", "cost": 1.0, "error": None}, {"answer": "y", "cost": 0.0, "error": None}))


def changed(**values) -> Rows:
    return Rows(MINE.requests, (MINE.rows[0], {**MINE.rows[1], **values}))


def test_what_it_cost_is_no_part_of_the_answer():
    assert check_rows(MINE, changed(cost=5.0), repeatable=True) == 1


def test_another_answer_is_refused_where_nothing_is_random():
    assert check_rows(MINE, changed(answer="z"), repeatable=False) == 0.5
    with pytest.raises(ArtifactMismatch, match="answers 1 of 2 rows otherwise"):
        check_rows(MINE, changed(answer="z"), repeatable=True)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (Rows(("a", "c"), MINE.rows), "sends other requests for 1 of 2 rows"),
        (changed(more=1), "gives other columns"),
        (changed(error="timeout=1"), "failed: timeout=1"),
    ],
)
def test_what_no_endpoint_explains_is_refused(theirs, told):
    with pytest.raises(ArtifactMismatch, match=told):
        check_rows(MINE, theirs, repeatable=False)
