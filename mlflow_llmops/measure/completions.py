"""How close completions are to what the texts really go on with, and to a baseline's."""

from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import share_interval, statistic_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.wording import common_f1, words


def continuations(texts: Sequence[str], prompts: Sequence[str]) -> tuple[str, ...]:
    """What the first text that begins with each prompt goes on with. Raises ValueError where no text does."""
    found = []
    for prompt in prompts:
        rests = (text.strip()[len(prompt) :].strip() for text in texts if text.strip().startswith(prompt))
        rest = next(rests, None)
        if rest is None:
            raise ValueError(f"no text begins with {prompt!r}")
        found.append(rest)
    return tuple(found)


def against_texts(written: Sequence[str], real: Sequence[str]) -> Measurements:
    """ROUGE-L and exact match against the real continuations, each cut to the number of words that was written."""
    pairs = [(now := words(text), words(other)[: max(1, len(now))]) for text, other in zip(written, real, strict=True)]
    scores = np.array([common_f1(other, now) for now, other in pairs])
    found = statistic_interval(lambda drawn: float(scores[drawn].mean()), len(scores))
    return {
        names.ROUGE_L: Estimate(found.value, min(found.value, found.low), max(found.value, found.high)),
        names.EXACT_MATCH: share_interval(np.array([now == other for now, other in pairs], bool)),
    }


def alike(baseline: Sequence[str], candidate: Sequence[str]) -> Measurements:
    """The share of prompts that both complete alike, character by character."""
    same = np.array([was.strip() == now.strip() for was, now in zip(baseline, candidate, strict=True)], bool)
    return {names.COMPLETIONS_ALIKE: share_interval(same)}
