"""How good the answers are, and how much they changed."""

from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import share_change, share_interval, share_ratio, statistic_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements

BINS = 15


def classification(truth: Sequence[str], predicted: Sequence[str]) -> Measurements:
    """Accuracy and macro-F1 (as scikit-learn defines them), with the number of texts they come from."""
    codes = {label: i for i, label in enumerate(sorted({*truth, *predicted}))}
    true, guessed = (np.array([codes[label] for label in labels]) for labels in (truth, predicted))

    def f1(picked: np.ndarray) -> float:
        # scikit-learn's f1_score gives the same in 2 ms, which a thousand resamples have no time for
        hits = np.bincount(true[picked][true[picked] == guessed[picked]], minlength=len(codes))
        either = np.bincount(true[picked], minlength=len(codes)) + np.bincount(guessed[picked], minlength=len(codes))
        seen = either > 0
        return float((2 * hits[seen] / either[seen]).mean())

    return {
        names.ACCURACY: share_interval(true == guessed),
        names.F1_MACRO: statistic_interval(f1, len(true)),
        names.QUALITY_TEXTS: float(len(true)),
    }


def change(truth: Sequence[str], baseline: Sequence[str], candidate: Sequence[str]) -> Measurements:
    """What the candidate's answers are against the baseline's, text by text.

    `quality/change` is the difference in accuracy, paired, so its interval is narrower than the two accuracies' own;
    `quality/retained` is the ratio; `quality/agreement` the share of texts that both answer alike.
    """
    was, now = (np.array([a == b for a, b in zip(truth, p, strict=True)], bool) for p in (baseline, candidate))
    same = np.array([a == b for a, b in zip(baseline, candidate, strict=True)], bool)
    return {
        names.QUALITY_CHANGE: share_change(was, now),
        names.RETAINED: share_ratio(was, now),
        names.AGREEMENT: share_interval(same),
    }


def calibration_error(
    truth: Sequence[str], predicted: Sequence[str], probabilities: Sequence[float] | np.ndarray
) -> Estimate:
    """How far the probability of the chosen label is from the share of texts for which it is right, on average over 15
    bins of equal width (expected calibration error; Guo et al., arXiv:1706.04599); bootstrap over texts.

    Resampling only ever adds error, so the interval is wide at its upper end.
    """
    said = np.asarray(probabilities, dtype=np.float64)
    off = np.array([a == b for a, b in zip(truth, predicted, strict=True)], float) - said
    # the bins are closed above, as in the paper
    bins = np.clip(np.ceil(said * BINS).astype(int) - 1, 0, BINS - 1)

    def error(picked: np.ndarray) -> float:
        # the size of a bin cancels out: its share of texts times the mean of what it is off by
        return float(np.abs(np.bincount(bins[picked], off[picked], BINS)).sum() / len(picked))

    found = statistic_interval(error, len(off))
    return Estimate(found.value, min(found.value, found.low), max(found.value, found.high))
