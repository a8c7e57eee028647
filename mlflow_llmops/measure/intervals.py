"""95 % intervals: closed forms for shares of texts, bootstrap for other qualities, order statistics for times.

The bootstrap has no width where no text of the sample differs, so five equal answers would prove anything; the closed
forms keep a width that only more texts take away.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from mlflow_llmops.measure.measurement import Estimate

RESAMPLES = 1000
CONFIDENCE = 0.95
Z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


def share_interval(hits: np.ndarray) -> Estimate:
    """The share of texts that are hits, (texts,) of booleans: Wilson's score interval (1927)."""
    count = int(hits.sum())
    interval = stats.binomtest(count, len(hits)).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / len(hits), float(interval.low), float(interval.high))


def share_change(was: np.ndarray, now: np.ndarray) -> Estimate:
    """How a share changed on the same texts, `now - was`, both (texts,) of booleans.

    The changes that a score test does not reject (Tango, 1998), which holds for a handful of differing texts as well.
    """
    count, lost, won = len(was), int((was & ~now).sum()), int((now & ~was).sum())
    value = (won - lost) / count

    def beyond(change: float) -> float:
        """Above 0 where the test rejects `change`; the share that lost is the likeliest one under it."""
        b = -won - lost + (2 * count - won + lost) * change
        share = (math.sqrt(max(0.0, b * b + 8 * count * lost * change * (1 - change))) - b) / (4 * count)
        return (won - lost - count * change) ** 2 - Z**2 * count * (2 * share + change * (1 - change))

    # the test is 0 / 0 at the value itself where no text differs
    low = optimize.brentq(beyond, -1, value - 1e-9) if beyond(-1) > 0 else -1.0
    high = optimize.brentq(beyond, value + 1e-9, 1) if beyond(1) > 0 else 1.0
    return Estimate(value, float(low), float(high))


def independent_change(was: Estimate, now: Estimate) -> Estimate:
    """How a quantity changed between two samples that have nothing in common, `now - was`, from both intervals.

    Newcombe's hybrid score interval for shares (1998, method 10), for other quantities Zou and Donner's MOVER (2008).
    """
    value = now.value - was.value
    below = math.hypot(now.value - now.low, was.high - was.value)
    above = math.hypot(now.high - now.value, was.value - was.low)
    return Estimate(value, value - below, value + above)


def share_ratio(was: np.ndarray, now: np.ndarray) -> Estimate:
    """The ratio of two shares on the same texts, `now / was`: the paired log ratio (Nam and Blackwelder, 2002).

    Two texts that differ are added, so that none is no proof; without a hit in `was` the ratio is against one hit.
    """
    differ, before, after = int((was != now).sum()) + 2, int(was.sum()) + 1, int(now.sum()) + 1
    half = Z * math.sqrt(differ / (before * after))
    value, middle = int(now.sum()) / max(int(was.sum()), 1), after / before
    return Estimate(value, min(value, middle * math.exp(-half)), max(value, middle * math.exp(half)))


def statistic_interval(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0) -> Estimate:
    """Any statistic of `count` texts, given as a function of the positions that were drawn, by percentile bootstrap
    (Efron, 1979)."""
    random = np.random.default_rng(seed)
    drawn = [statistic(random.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(statistic(np.arange(count)), float(low), float(high))


def quantile_interval(values: np.ndarray, quantile: float = 0.5) -> Estimate:
    """A quantile by order statistics: needs no distribution and no outlier moves it (Conover, 1999).

    Where there are too few values for 95 %, that end is infinite: it is not known.
    """
    interval = stats.quantile_test(values, p=quantile).confidence_interval(CONFIDENCE)
    low = float(interval.low) if np.isfinite(interval.low) else -math.inf
    high = float(interval.high) if np.isfinite(interval.high) else math.inf
    return Estimate(float(np.quantile(values, quantile)), low, high)


def pooled_interval(sums: np.ndarray, counts: np.ndarray, unseen: tuple[float, ...] = (), seed: int = 0) -> Estimate:
    """The mean over all tokens of all texts, from each text's sum and number of tokens, (texts,) both; bootstrap over
    texts, since the tokens of one text go together.

    `unseen` are the means of further texts, of the usual length, that widen the interval and leave the value: where all
    texts are alike, only many of them say that the next one is too.
    """
    length = counts.mean()
    more = np.array([*sums, *(mean * length for mean in unseen)])
    tokens = np.array([*counts, *([length] * len(unseen))])
    interval = statistic_interval(lambda drawn: float(more[drawn].sum() / tokens[drawn].sum()), len(more), seed)
    value = float(sums.sum() / counts.sum())
    return Estimate(value, min(value, interval.low), max(value, interval.high))
