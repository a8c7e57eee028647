"""Intervals hold what they promise: closed forms, scipy, and coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from mlflow_llmops.measure.intervals import (
    independent_change,
    pooled_interval,
    quantile_interval,
    share_change,
    share_interval,
    share_ratio,
    statistic_interval,
)


def covers(estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.97])
def test_a_share_is_covered_about_95_times_in_100(truth):
    random = np.random.default_rng(1)
    share = np.mean([covers(share_interval(random.random(150) < truth), truth) for _ in range(2000)])
    assert 0.93 <= share <= 0.985


def paired(random: np.random.Generator, count: int, lost: float, won: float) -> tuple[np.ndarray, np.ndarray]:
    """Hits of two models on the same texts: 0.7 - `lost` both, and the shares that only one has."""
    cell = random.choice(4, count, p=[0.7 - lost, lost, won, 0.3 - won])
    return (cell == 0) | (cell == 1), (cell == 0) | (cell == 2)


@pytest.mark.parametrize(("count", "lost", "won"), [(60, 0.05, 0.02), (400, 0.03, 0.01), (400, 0.0, 0.005)])
def test_a_paired_change_and_ratio_are_covered(count, lost, won):
    random = np.random.default_rng(2)
    draws = [paired(random, count, lost, won) for _ in range(2000)]
    assert np.mean([covers(share_change(was, now), won - lost) for was, now in draws]) >= 0.94
    assert np.mean([covers(share_ratio(was, now), (0.7 - lost + won) / 0.7) for was, now in draws]) >= 0.94


def test_many_texts_give_the_normal_interval_of_paired_differences():
    was, now = paired(np.random.default_rng(3), 20_000, 0.06, 0.04)
    difference = now.astype(float) - was
    low, high = stats.norm.interval(0.95, difference.mean(), difference.std() / np.sqrt(len(difference)))
    interval = share_change(was, now)
    assert (interval.value, interval.low, interval.high) == pytest.approx((difference.mean(), low, high), abs=2e-4)


def test_equal_answers_prove_more_the_more_texts_there_are():
    widths = []
    for count in (5, 50, 2000):
        same = np.ones(count, bool)
        change, ratio, share = share_change(same, same), share_ratio(same, same), share_interval(same)
        assert change.value == 0 and ratio.value == share.value == 1
        assert change.low < 0 < change.high and ratio.low < 1 < ratio.high and share.low < 1 == share.high
        widths.append(change.high - change.low)
    assert widths[0] > 0.25 and widths[2] < 0.005
    assert widths[0] > widths[1] > widths[2]


def test_an_interval_holds_its_value_and_stays_in_range():
    none, all_ = np.zeros(4, bool), np.ones(4, bool)
    for was, now in ((none, all_), (all_, none), (none, none), (all_, all_)):
        change, ratio = share_change(was, now), share_ratio(was, now)
        assert -1 <= change.low <= change.value <= change.high <= 1
        assert 0 <= ratio.low <= ratio.value <= ratio.high


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(2).exponential(size=80)
    interval = statistic_interval(lambda picked: float(np.median(values[picked])), len(values))
    other = stats.bootstrap((values,), np.median, method="percentile", n_resamples=1000, rng=3).confidence_interval
    assert interval.value == np.median(values)
    assert interval.low == pytest.approx(other.low, rel=0.15)
    assert interval.high == pytest.approx(other.high, rel=0.15)


def test_a_seed_fixes_an_interval_and_another_moves_it():
    values = np.random.default_rng(3).normal(size=50)

    def mean(picked: np.ndarray) -> float:
        return float(values[picked].mean())

    assert statistic_interval(mean, 50, seed=4) == statistic_interval(mean, 50, seed=4)
    assert statistic_interval(mean, 50, seed=4) != statistic_interval(mean, 50, seed=5)


def test_equal_times_have_no_width():
    interval = quantile_interval(np.ones(30))
    assert interval.low == interval.value == interval.high == 1


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


def test_too_few_values_leave_the_ends_unknown():
    median = quantile_interval(np.array([3.0, 1.0, 2.0]))
    assert (median.value, median.low, median.high) == (2, -np.inf, np.inf)
    tail = quantile_interval(np.arange(1.0, 71.0), 0.95)
    assert np.isfinite(tail.low) and tail.high == np.inf


def test_a_measurement_has_singles_enough_for_both_ends_of_a_95th_percentile():
    from mlflow_llmops.measure.speed import FEWEST_ROUNDS, SINGLES

    interval = quantile_interval(np.arange(float(FEWEST_ROUNDS * SINGLES)), 0.95)
    assert np.isfinite([interval.low, interval.high]).all()


def test_more_values_leave_the_ends_behind():
    few, many = quantile_interval(np.arange(7.0)), quantile_interval(np.arange(20.0))
    assert (few.low, many.low > 0, many.high < 19) == (0, True, True)


def test_a_mean_over_tokens_is_covered_where_the_tokens_of_a_text_go_together():
    random = np.random.default_rng(6)
    hits = []
    for _ in range(200):
        counts = random.integers(5, 40, 60)
        sums = counts * random.normal(0.3, 1.0, 60)  # one level for all tokens of a text
        hits.append(covers(pooled_interval(sums, counts), 0.3))
    assert 0.88 <= np.mean(hits) <= 0.99


def test_unseen_texts_widen_the_interval_and_leave_the_value():
    sums, counts = np.array([2.0, 6.0, 4.0]), np.array([10, 20, 10])
    plain, wide = pooled_interval(sums, counts), pooled_interval(sums, counts, unseen=(-1.0, 1.0))
    assert plain.value == wide.value == 12 / 40
    assert wide.low < plain.low and wide.high > plain.high


@pytest.mark.parametrize(("was", "now"), [(0.9, 0.9), (0.97, 0.8)])
def test_a_change_between_two_samples_is_covered_about_95_times_in_100(was, now):
    random = np.random.default_rng(4)
    draws = [(share_interval(random.random(150) < was), share_interval(random.random(400) < now)) for _ in range(2000)]
    found = [independent_change(*draw) for draw in draws]
    assert 0.93 <= np.mean([covers(change, now - was) for change in found]) <= 0.98
    # narrower than what the two intervals' ends would say
    assert all(
        change.high - change.low < b.high - a.low - (b.low - a.high)
        for change, (a, b) in zip(found, draws, strict=True)
    )


def test_newcombes_own_example_of_two_samples():
    """56 of 70 and 48 of 80: 0.2 with an interval of 0.0524 to 0.3339 (Statistics in Medicine 17, 1998, table II)."""
    one, two = (share_interval(np.arange(count) < hits) for hits, count in ((56, 70), (48, 80)))
    change = independent_change(two, one)
    assert (round(change.low, 4), round(change.high, 4)) == (0.0524, 0.3339)
