"""Intervals hold what they promise: closed forms, scipy, and coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from mlflow_llmops.measure.intervals import mean_interval, quantile_interval, statistic_interval


def covers(estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def test_the_mean_of_many_values_has_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    low, high = stats.norm.interval(0.95, values.mean(), values.std() / np.sqrt(len(values)))
    interval = mean_interval(values)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.05 * (high - low))


def test_a_binomial_mean_is_covered_about_95_times_in_100():
    random = np.random.default_rng(1)
    draws = [(random.random(150) < 0.8).astype(float) for _ in range(200)]
    share = np.mean([covers(mean_interval(draw, seed), 0.8) for seed, draw in enumerate(draws)])
    # the count over 200 samples has a standard deviation of 0.016
    assert 0.89 <= share <= 0.99


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(2).exponential(size=80)
    interval = statistic_interval(lambda picked: float(np.median(values[picked])), len(values))
    other = stats.bootstrap((values,), np.median, method="percentile", n_resamples=1000, rng=3).confidence_interval
    assert interval.value == np.median(values)
    assert interval.low == pytest.approx(other.low, rel=0.15)
    assert interval.high == pytest.approx(other.high, rel=0.15)


def test_a_seed_fixes_an_interval_and_another_moves_it():
    values = np.random.default_rng(3).normal(size=50)
    assert mean_interval(values, 4) == mean_interval(values, 4)
    assert mean_interval(values, 4) != mean_interval(values, 5)


def test_equal_values_have_no_width():
    assert mean_interval(np.ones(30)) == quantile_interval(np.ones(30))
    assert mean_interval(np.ones(30)).high == mean_interval(np.ones(30)).low == 1


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_a_quantile_of_skewed_times_is_covered(quantile):
    random = np.random.default_rng(5)
    truth = stats.lognorm.ppf(quantile, 1.0)
    share = np.mean([covers(quantile_interval(random.lognormal(size=150), quantile), truth) for _ in range(300)])
    assert share >= 0.92


def test_the_ends_are_the_order_statistics_of_the_binomial():
    values = np.random.default_rng(6).permutation(np.arange(1.0, 101.0))
    interval = quantile_interval(values)
    # P(X_(low) <= median <= X_(high)) where the count below the median is binomial
    low, high = int(interval.low), int(interval.high)
    binomial = stats.binom(100, 0.5)
    assert binomial.cdf(high - 1) - binomial.cdf(low - 1) >= 0.95
    assert binomial.cdf(high - 3) - binomial.cdf(low + 1) < 0.95, "ends further in would do"
    assert interval.value == 50.5


def test_outliers_do_not_move_the_median():
    values = np.random.default_rng(7).normal(10, 1, 60)
    wild = values.copy()
    wild[wild.argsort()[-3:]] *= 1000
    assert quantile_interval(wild) == quantile_interval(values)


def test_too_few_values_give_the_ends_seen():
    median = quantile_interval(np.array([3.0, 1.0, 2.0]))
    assert (median.low, median.high) == (1.0, 3.0)
    assert quantile_interval(np.array([3.0, 1.0, 2.0]), 0.95).high == 3.0


def test_more_values_leave_the_ends_behind():
    few, many = quantile_interval(np.arange(7.0)), quantile_interval(np.arange(20.0))
    assert (few.low, many.low > 0, many.high < 19) == (0, True, True)
