"""How well a causal model predicts text, and how much that changed."""

import math
from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure.intervals import pooled_interval
from mlflow_llmops.measure.likelihood import Likelihoods
from mlflow_llmops.measure.measurement import Estimate, Measurements

UNSEEN_CHANGE = 1.0
"""Nats per token by which the two models differ in the two texts, one each way, that widen the interval of a change.

Log-likelihoods have no bound, so no interval follows from equal ones alone: this says how far off a text may be that
was not seen. Without any difference it leaves about 2.8 / texts on either side, so 0.02 nats take some 140 texts."""


def language(found: Likelihoods) -> Measurements:
    """Perplexity: e to the mean negative log-likelihood of a token; the share of tokens that are held most likely; and
    the number of texts both come from.

    Raises DataError where no text has a token to predict.
    """
    sums, counts = _totals(found)
    hits = np.array([row.sum() for row in found.hits], dtype=np.float64)[found.counts > 0]
    return {
        names.PERPLEXITY: _exp(pooled_interval(-sums, counts)),
        names.TOKEN_ACCURACY: pooled_interval(hits, counts, (0.0, 1.0)),
        names.QUALITY_TEXTS: float(len(counts)),
    }


def language_change(baseline: Likelihoods, candidate: Likelihoods, texts: Sequence[str]) -> Measurements:
    """What the candidate predicts against the baseline, paired text by text.

    `quality/change` is the difference of the mean log-likelihood in nats per token: below 0 is worse.
    `quality/retained` is e to that, the baseline's perplexity over the candidate's. `quality/agreement` is the share of
    tokens for which both hold the same one most likely.

    Two tokenizers are compared by the characters that both predict, as nats per character times the characters of a
    token of the baseline's, so that the unit stays; they have no agreement.
    """
    wide = (-UNSEEN_CHANGE, UNSEEN_CHANGE)
    if baseline.tokenizer != candidate.tokenizer:
        was, now = (_per_character(found, texts) for found in (baseline, candidate))
        both = [~np.isnan(a) & ~np.isnan(b) for a, b in zip(was, now, strict=True)]
        sums = np.array([(b - a)[common].sum() for a, b, common in zip(was, now, both, strict=True)])
        characters = np.array([common.sum() for common in both])
        covered = sum(int((~np.isnan(row)).sum()) for row in was)
        token = covered / max(1, baseline.counts.sum())
        seen = characters > 0
        if not seen.any():
            raise DataError("no text of the test split is predicted by both models, so they cannot be compared")
        change = pooled_interval(sums[seen] * token, characters[seen].astype(float), wide)
        return {names.QUALITY_CHANGE: change, names.RETAINED: _exp(change)}
    _, counts = _totals(baseline)
    seen = baseline.counts > 0
    pairs = [pair for pair, there in zip(zip(baseline.log, candidate.log, strict=True), seen, strict=True) if there]
    change = pooled_interval(np.array([(now - was).sum() for was, now in pairs]), counts, wide)
    same = [(a == b).sum() for a, b, there in zip(baseline.best, candidate.best, seen, strict=True) if there]
    return {
        names.QUALITY_CHANGE: change,
        names.RETAINED: _exp(change),
        names.AGREEMENT: pooled_interval(np.array(same, dtype=float), counts, (0.0, 1.0)),
    }


def _totals(found: Likelihoods) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood of each text that has a token to predict, and its number of such tokens."""
    seen = found.counts > 0
    if not seen.any():
        raise DataError("no text of the test split has two tokens, so there is none to predict; give longer texts")
    sums = np.array([values.sum() for values in found.log], dtype=np.float64)
    return sums[seen], found.counts[seen].astype(float)


def _per_character(found: Likelihoods, texts: Sequence[str]) -> list[np.ndarray]:
    """Log-likelihoods spread evenly over each token's characters, (characters,); NaN where nothing is predicted."""
    spread = []
    for text, log, ends, start in zip(texts, found.log, found.ends, found.starts, strict=True):
        row = np.full(len(text), np.nan)
        row[start : int(ends[-1]) if len(ends) else start] = 0.0
        for value, end in zip(log, ends, strict=True):
            # the bytes of one character may be several tokens
            first = min(start, end - 1)
            if end > 0:
                row[first:end] += value / (end - first)
            start = int(end)
        spread.append(row)
    return spread


def _exp(estimate: Estimate) -> Estimate:
    return Estimate(math.exp(estimate.value), math.exp(estimate.low), math.exp(estimate.high))
