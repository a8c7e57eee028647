"""Quality against scikit-learn and against cases small enough to count by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mlflow_llmops import names
from mlflow_llmops.measure.quality import change, classification

TRUTH = ["a", "a", "b", "b"]


def answers(truth: list[str], wrong: float, seed: int) -> list[str]:
    """The truth with a share of `wrong` answers."""
    random = np.random.default_rng(seed)
    return [random.choice([x for x in "abc" if x != label]) if random.random() < wrong else label for label in truth]


def drawn(count: int, seed: int) -> list[str]:
    return list(np.random.default_rng(seed).choice(list("abc"), count, p=[0.6, 0.3, 0.1]))


def test_scikit_learn_agrees():
    truth = drawn(300, 0)
    predicted = answers(truth, 0.2, 1)
    measured = classification(truth, predicted)
    assert measured[names.ACCURACY].value == pytest.approx(accuracy_score(truth, predicted))
    assert measured[names.F1_MACRO].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert measured[names.QUALITY_TEXTS] == 300


def test_counted_by_hand():
    measured = classification(TRUTH, ["a", "b", "b", "b"])
    assert measured[names.ACCURACY].value == 3 / 4
    # a: precision 1, recall 1/2; b: precision 2/3, recall 1
    assert measured[names.F1_MACRO].value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert measured[names.QUALITY_TEXTS] == 4


def test_an_answer_that_is_no_label_is_wrong():
    assert classification(TRUTH, ["a", "a", "b", "c"])[names.ACCURACY].value == 3 / 4


def test_intervals_lie_around_their_values():
    truth = drawn(200, 2)
    measured = classification(truth, answers(truth, 0.3, 3))
    for name in (names.ACCURACY, names.F1_MACRO):
        assert 0 < measured[name].low < measured[name].value < measured[name].high < 1


def test_a_change_counted_by_hand():
    measured = change(TRUTH, baseline=["a", "a", "b", "a"], candidate=["a", "b", "a", "b"])
    # the baseline has three right, the candidate two; they agree on the first text only
    assert measured[names.QUALITY_CHANGE].value == -1 / 4
    assert measured[names.RETAINED].value == pytest.approx(2 / 3)
    assert measured[names.AGREEMENT].value == 1 / 4


def test_equal_answers_change_nothing():
    predicted = ["a", "b", "b", "b"]
    measured = change(TRUTH, predicted, predicted)
    change_ = measured[names.QUALITY_CHANGE]
    assert change_.low < change_.value == 0 < change_.high  # four texts cannot prove that nothing changed
    assert measured[names.RETAINED].value == measured[names.AGREEMENT].value == 1


def test_a_useless_baseline_divides_by_nothing():
    assert change(TRUTH, ["b", "b", "a", "a"], TRUTH)[names.RETAINED].value == 4


def test_a_paired_change_is_narrower_than_the_difference_of_two():
    truth = drawn(500, 4)
    baseline = answers(truth, 0.2, 5)
    candidate = answers(baseline, 0.04, 6)
    paired = change(truth, baseline, candidate)[names.QUALITY_CHANGE]
    one, two = (classification(truth, predicted)[names.ACCURACY] for predicted in (baseline, candidate))
    unpaired = np.hypot(one.high - one.low, two.high - two.low)
    assert paired.value == pytest.approx(two.value - one.value)
    assert paired.high - paired.low < 0.7 * unpaired


def test_a_real_loss_is_found_and_noise_is_not():
    truth = drawn(500, 7)
    baseline = answers(truth, 0.2, 8)
    assert change(truth, baseline, answers(baseline, 0.2, 9))[names.QUALITY_CHANGE].high < 0
    other = change(truth, baseline, answers(truth, 0.2, 10))[names.QUALITY_CHANGE]
    assert other.low < 0 < other.high


def test_answers_must_be_as_many_as_texts():
    with pytest.raises(ValueError, match="zip"):
        change(TRUTH, TRUTH, TRUTH[:3])
