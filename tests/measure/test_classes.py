"""Quality label by label, counted by hand; and that probabilities mean what they say."""

from itertools import pairwise

import numpy as np
import pytest

from mlflow_llmops.measure.classes import by_class
from mlflow_llmops.measure.quality import BINS, calibration_error
from mlflow_llmops.tracking.classes import classes_markdown, confusion_png


def found():
    truth = ["a", "a", "a", "b"]
    return by_class(truth, {"was": ["a", "a", "b", "b"], "now": ["a", "b", "b", "c"]})


def test_counted_by_hand():
    classes = found()
    assert classes.labels == ("a", "b", "c")
    assert classes.texts.tolist() == [3, 1, 0]
    assert classes.precision["was"].tolist() == pytest.approx([1, 1 / 2, 0])
    assert classes.recall["was"].tolist() == pytest.approx([2 / 3, 1, 0])
    assert classes.f1["now"].tolist() == pytest.approx([1 / 2, 0, 0])
    assert classes.confusion["now"].tolist() == pytest.approx(np.array([[1, 2, 0], [0, 0, 3], [0, 0, 0]]) / 3)


def test_the_table_starts_with_the_label_that_lost_most_and_the_picture_has_every_model():
    rows = [line for line in classes_markdown(found()).splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["label", "b", "a", "c"]
    assert rows[1].endswith("| -0.667 |")
    drawn = [axes.get_title() for axes in confusion_png(found()).axes if axes.get_title()]
    assert drawn == ["was", "now"]


def test_calibration_is_the_mean_distance_of_bins():
    truth = ["a"] * 8
    # four texts at 0.95 of which two are right, four at 0.6 of which three are
    predicted = ["a", "a", "b", "b", "a", "a", "a", "b"]
    measured = calibration_error(truth, predicted, [0.95] * 4 + [0.6] * 4)
    assert measured.value == pytest.approx((0.45 + 0.15) / 2)
    assert measured.low <= measured.value <= measured.high


def test_calibration_agrees_with_the_definition_written_out():
    random = np.random.default_rng(0)
    said = random.random(500)
    truth = ["a"] * 500
    predicted = ["a" if random.random() < chance**2 else "b" for chance in said]
    right = np.array([label == "a" for label in predicted], float)
    edges = np.linspace(0, 1, BINS + 1)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (said > low) & (said <= high)
        expected += inside.mean() * abs(right[inside].mean() - said[inside].mean())
    assert calibration_error(truth, predicted, said).value == pytest.approx(expected)
    sure = calibration_error(truth, truth, np.ones(500))
    assert (sure.value, sure.low, sure.high) == (0, 0, 0)
