"""95 % intervals: bootstrap over texts for quality, order statistics for times, which have outliers."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from mlflow_llmops.measure.measurement import Estimate

RESAMPLES = 1000
CONFIDENCE = 0.95


def mean_interval(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of one value a text, (texts,), by percentile bootstrap (Efron, 1979)."""
    return statistic_interval(lambda picked: float(values[picked].mean()), len(values), seed)


def statistic_interval(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0) -> Estimate:
    """Any statistic of `count` texts, given as a function of the positions that were drawn."""
    random = np.random.default_rng(seed)
    drawn = [statistic(random.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(statistic(np.arange(count)), float(low), float(high))


def quantile_interval(values: np.ndarray, quantile: float = 0.5) -> Estimate:
    """A quantile by order statistics: needs no distribution and no outlier moves it (Conover, 1999).

    Where there are too few values for 95 %, the end is the smallest or largest one seen.
    """
    interval = stats.quantile_test(values, p=quantile).confidence_interval(CONFIDENCE)
    low = interval.low if np.isfinite(interval.low) else values.min()
    high = interval.high if np.isfinite(interval.high) else values.max()
    return Estimate(float(np.quantile(values, quantile)), float(low), float(high))
