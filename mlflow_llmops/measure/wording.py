"""How near free text comes to the text that was wanted."""

import re
from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import share_interval, statistic_interval
from mlflow_llmops.measure.measurement import Measurements

WORDS = re.compile(r"\w+")


def wording(wanted: Sequence[str], written: Sequence[str | None]) -> Measurements:
    """The share of answers that are the wanted text but for spaces at the ends, and mean ROUGE-L (Lin, 2004), with
    their number. A row without an answer has neither."""
    exact = np.array([a is not None and a.strip() == b.strip() for a, b in zip(written, wanted, strict=True)], bool)
    near = np.array([0.0 if a is None else rouge_l(b, a) for a, b in zip(written, wanted, strict=True)])
    return {
        names.EXACT_MATCH: share_interval(exact),
        names.ROUGE_L: statistic_interval(lambda drawn: float(near[drawn].mean()), len(near)),
        names.QUALITY_TEXTS: float(len(exact)),
    }


def rouge_l(wanted: str, written: str) -> float:
    """F1 of the longest common subsequence of words, small letters and large alike; words of any alphabet count."""
    a, b = (WORDS.findall(text.lower()) for text in (wanted, written))
    lengths = [0] * (len(b) + 1)
    for word in a:
        before = lengths
        lengths = [0]
        for i, other in enumerate(b):
            lengths.append(before[i] + 1 if word == other else max(before[i + 1], lengths[i]))
    return 2 * lengths[-1] / (len(a) + len(b)) if a or b else float(wanted.strip() == written.strip())
