"""The columns and the front follow what was measured: perplexity is better where it is lower."""

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.tracking.pareto import pareto_front, pareto_plot, pareto_png
from mlflow_llmops.tracking.report import Row, markdown, table


def row(label: str, quality: str, value: float, speed: float) -> Row:
    return Row(label, {quality: Estimate(value, value, value), names.TEXTS_PER_S: Estimate(speed, speed, speed)})


@pytest.mark.parametrize(
    ("quality", "front", "shown", "hidden"),
    [(names.ACCURACY, ["a", "c"], "accuracy", "perplexity"), (names.PERPLEXITY, ["b", "c"], "perplexity", "accuracy")],
)
def test_the_front_and_the_columns(quality, front, shown, hidden):
    rows = [row("a", quality, 30.0, 10), row("b", quality, 20.0, 10), row("c", quality, 25.0, 20)]
    assert [each.label for each in pareto_front(rows)] == front
    text = markdown(rows, "Comparison")
    assert shown in text and hidden not in text
    assert any(column.header == shown for column in table(rows).columns)
    assert shown in pareto_png(rows).axes[0].get_ylabel()
    assert shown in pareto_plot(rows).layout.yaxis.title.text
