"""How close completions are to what the texts really go on with, and to a baseline's."""

import re
from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import share_interval, statistic_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements

WORD = re.compile(r"[a-z0-9]+")


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
    pairs = [
        (now := _words(text), _words(other)[: max(1, len(now))]) for text, other in zip(written, real, strict=True)
    ]
    scores = np.array([rouge_l(other, now) for now, other in pairs])
    found = statistic_interval(lambda drawn: float(scores[drawn].mean()), len(scores))
    return {
        names.ROUGE_L: Estimate(found.value, min(found.value, found.low), max(found.value, found.high)),
        names.EXACT_MATCH: share_interval(np.array([now == other for now, other in pairs], bool)),
    }


def alike(baseline: Sequence[str], candidate: Sequence[str]) -> Measurements:
    """The share of prompts that both complete alike, character by character."""
    same = np.array([was.strip() == now.strip() for was, now in zip(baseline, candidate, strict=True)], bool)
    return {names.COMPLETIONS_ALIKE: share_interval(same)}


def rouge_l(reference: Sequence[str], written: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004); 0 where either has none."""
    row = [0] * (len(written) + 1)
    for word in reference:
        before = row
        row = [0]
        for position, other in enumerate(written):
            row.append(before[position] + 1 if word == other else max(before[position + 1], row[-1]))
    common = row[-1]
    return 2 * common / (len(reference) + len(written)) if common else 0.0


def _words(text: str) -> list[str]:
    """As the reference implementation of ROUGE cuts them, without stemming."""
    return WORD.findall(text.lower())
