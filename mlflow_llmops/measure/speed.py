"""Inference time, measured on the machine at hand: all models in turn (A B A B ...), so that drift meets them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements

Score = Callable[[Sequence[str]], object]
"""Scores texts, from strings to numbers: tokenising is part of what a user waits for."""

WARM_UPS = 2
FEWEST_ROUNDS = 7
"""Below six pairs the order-statistics interval of a median does not reach 95 %."""
SINGLES = 12
"""Texts scored one by one in each round: below 72 in all, the upper end of a 95th percentile is not known."""
SECONDS_A_ROUND = 0.25
"""What one throughput measurement of the slowest model should take at least."""
ROUNDS = 40
"""Its share of a longer measurement, which has more texts then and not rounds alone."""


@dataclass(frozen=True)
class Times:
    """Seconds of each round: `batch` (rounds,) for all texts, `single` (rounds x singles,) for one text each."""

    batch: np.ndarray
    single: np.ndarray
    texts: int
    tokens: int

    def measurements(self) -> Measurements:
        """Throughput and latency under their names."""
        rate = quantile_interval(1 / self.batch)
        milliseconds = self.single * 1000
        return {
            names.TEXTS_PER_S: rate.scaled(self.texts),
            names.TOKENS_PER_S: rate.scaled(self.tokens),
            names.LATENCY_P50: quantile_interval(milliseconds, 0.5),
            names.LATENCY_P95: quantile_interval(milliseconds, 0.95),
        }


def measure_speed(
    models: Mapping[str, Score],
    texts: Sequence[str],
    tokens: Callable[[Sequence[str]], int],
    seconds: float = 10.0,
    singles: int = SINGLES,
) -> dict[str, Times]:
    """Time every model on the same texts for about `seconds` in all, after a warm-up.

    The sample is what the slowest model scores in a `ROUNDS`th of the time: only among many texts, as a job has, are
    large batches of one length. In each round every model scores it once as a whole, then each `singles` texts one by
    one after a call that is not timed; the order of the models turns by one from round to round. `tokens` counts the
    sample's tokens.
    """
    labels = list(models)
    sample = _sample(
        models, list(dict.fromkeys(texts)), max(SECONDS_A_ROUND, seconds / ROUNDS)
    )  # a repeated text is scored once, which is no speed
    batch: dict[str, list[float]] = {label: [] for label in labels}
    single: dict[str, list[float]] = {label: [] for label in labels}
    for score in models.values():
        for _ in range(WARM_UPS):
            score(sample)
            score(sample[:1])
    end = time.perf_counter() + seconds
    rounds = 0
    with tqdm(total=round(seconds), desc="measuring speed", unit="s", bar_format="{l_bar}{bar}| {elapsed}") as bar:
        while rounds < FEWEST_ROUNDS or time.perf_counter() < end:
            turn = rounds % len(labels)
            picked = [sample[(rounds * singles + i) % len(sample)] for i in range(singles)]
            for label in labels[turn:] + labels[:turn]:
                batch[label].append(_seconds(models[label], sample))
            for label in labels[turn:] + labels[:turn]:
                models[label](picked[:1])  # untimed: another runtime's threads still spin
                single[label] += [_seconds(models[label], [text]) for text in picked]
            rounds += 1
            bar.n = min(bar.total, max(0, round(seconds - (end - time.perf_counter()))))
            bar.refresh()
    count = tokens(sample)
    return {label: Times(np.array(batch[label]), np.array(single[label]), len(sample), count) for label in labels}


def speedup(baseline: Times, candidate: Times) -> Estimate:
    """How many times as fast the candidate is: the median of the rounds' paired ratios. Above 1 is faster."""
    return quantile_interval(baseline.batch / candidate.batch)


def latency_speedup(baseline: Times, candidate: Times) -> Estimate:
    """The same for texts scored one by one."""
    return quantile_interval(baseline.single / candidate.single)


def _sample(models: Mapping[str, Score], texts: Sequence[str], round_seconds: float) -> list[str]:
    """As many texts, evenly spread, as the slowest model scores in `round_seconds`, and 32 at least."""
    probe = list(texts[:64])
    slowest = max(min(_seconds(score, probe) for _ in range(2)) for score in models.values())
    wanted = max(32, int(round_seconds / slowest * len(probe)))
    step = max(1, len(texts) // wanted)
    return list(texts[::step][:wanted])


def _seconds(score: Score, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    score(texts)
    return time.perf_counter() - start
