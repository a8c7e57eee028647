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
    """`common_f1` of the words; of texts without a word, whether they are the same."""
    a, b = words(wanted), words(written)
    return common_f1(a, b) if a or b else float(wanted.strip() == written.strip())


def common_f1(wanted: Sequence[str], written: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words; 0 where either has none."""
    lengths = [0] * (len(written) + 1)
    for word in wanted:
        before = lengths
        lengths = [0]
        for i, other in enumerate(written):
            lengths.append(before[i] + 1 if word == other else max(before[i + 1], lengths[i]))
    return 2 * lengths[-1] / max(1, len(wanted) + len(written))


def words(text: str) -> list[str]:
    """Of any alphabet, small letters and large alike."""
    return WORDS.findall(text.lower())
