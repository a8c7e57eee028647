"""Inference time, measured on the machine at hand: all models in turn, so that drift meets them alike."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.measure.energy import EnergyCounter, energy_counter
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.turns import turns

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
NARROW = 0.01
"""Half the width of a speed-up's interval, as a share of it, at which more rounds would tell nothing."""
LOOKS = 5
"""Rounds between two looks at the widths. Only widths are looked at and no value, and an interval by order statistics
is as often right after a stop as before."""

Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Times:
    """Seconds of each round: `batch` (rounds,) for all texts, `single` (rounds x singles,) for one text each."""

    batch: np.ndarray
    single: np.ndarray
    texts: int
    tokens: int
    joules: np.ndarray | None = None
    """Of the whole processor in each of `batch`, (rounds,), where it counts them."""
    ended: str = ""
    """How many rounds there were, and why no more."""

    def measurements(self) -> Measurements:
        """Throughput and latency under their names."""
        rate = quantile_interval(1 / self.batch)
        milliseconds = self.single * 1000
        energy = {} if self.joules is None else {names.JOULES_PER_TEXT: quantile_interval(self.joules / self.texts)}
        return {
            **energy,
            names.TEXTS_PER_S: rate.scaled(self.texts),
            names.TOKENS_PER_S: rate.scaled(self.tokens),
            names.LATENCY_P50: quantile_interval(milliseconds, 0.5),
            names.LATENCY_P95: quantile_interval(milliseconds, 0.95),
            names.LATENCY_P99: quantile_interval(milliseconds, 0.99),
        }


def measure_speed(
    models: Mapping[str, Score],
    texts: Sequence[str],
    tokens: Callable[[Sequence[str]], int],
    seconds: float,
    singles: int = SINGLES,
    narrow: float = NARROW,
    clock: Clock = time.perf_counter,
    random: np.random.Generator | None = None,
) -> dict[str, Times]:
    """Time every model on the same texts after a warm-up, until the speed-up of each against the first is known to
    within `narrow` of itself (of one model alone, its rate), or `seconds` are over.

    The sample is what the slowest model scores in a `ROUNDS`th of the time: only among many texts, as a job has, are
    large batches of one length. In each round every model scores it once as a whole, then each `singles` texts one by
    one after a call that is not timed; the order of the models is drawn each time (`turns.py`), by `random` where it is
    given. `tokens` counts the sample's tokens.
    """
    labels, order = list(models), turns(models, random)
    # a repeated text is scored once, which is no speed
    distinct = list(dict.fromkeys(texts))
    sample = _sample(models, distinct, max(SECONDS_A_ROUND, seconds / ROUNDS), clock)
    counter = energy_counter()
    batch: dict[str, list[float]] = {label: [] for label in labels}
    single: dict[str, list[float]] = {label: [] for label in labels}
    joules: dict[str, list[float]] = {label: [] for label in labels}
    for score in models.values():
        for _ in range(WARM_UPS):
            score(sample)
            score(sample[:1])
    start = clock()
    rounds, width = 0, math.inf
    with tqdm(total=round(seconds), desc="measuring speed", unit="s", bar_format="{l_bar}{bar}| {elapsed}") as bar:
        while rounds < FEWEST_ROUNDS or (clock() - start < seconds and width > narrow):
            picked = [sample[(rounds * singles + i) % len(sample)] for i in range(singles)]
            for label in next(order):
                spent, used = _seconds_and_joules(models[label], sample, clock, counter)
                batch[label].append(spent)
                joules[label] += used
            for label in next(order):
                models[label](picked[:1])  # untimed: another runtime's threads still spin
                single[label] += [_seconds(models[label], [text], clock) for text in picked]
            rounds += 1
            if rounds >= FEWEST_ROUNDS and (rounds - FEWEST_ROUNDS) % LOOKS == 0:
                width = _width(batch)
            bar.n = min(bar.total, max(0, round(clock() - start)))
            bar.refresh()
    ended = _ended(rounds, clock() - start, _width(batch), narrow)
    count = tokens(sample)
    return {
        label: Times(
            np.array(batch[label]),
            np.array(single[label]),
            len(sample),
            count,
            np.array(joules[label]) if counter else None,
            ended,
        )
        for label in labels
    }


def _width(batch: Mapping[str, Sequence[float]]) -> float:
    """Half the width of the widest speed-up's interval, as a share of it; infinite where an end is not known."""
    first, *others = (np.array(seconds) for seconds in batch.values())
    intervals = [quantile_interval(first / seconds) for seconds in others] or [quantile_interval(1 / first)]
    return max((each.high - each.low) / 2 / each.value for each in intervals)


def _ended(rounds: int, seconds: float, width: float, narrow: float) -> str:
    said = f"{rounds} rounds in {seconds:.1f} s"
    if width <= narrow:
        return f"{said}: every interval is within {100 * narrow:g} %"
    return f"{said}, until the time was over: the widest interval is {100 * width:.1f} % to either side"


def speedup(baseline: Times, candidate: Times) -> Estimate:
    """How many times as fast the candidate is: the median of the rounds' paired ratios. Above 1 is faster."""
    return quantile_interval(baseline.batch / candidate.batch)


def latency_speedup(baseline: Times, candidate: Times) -> Estimate:
    """The same for texts scored one by one, by the median of each round: its texts share what the machine did then."""
    ratios = (baseline.single / candidate.single).reshape(len(baseline.batch), -1)
    return quantile_interval(np.median(ratios, axis=1))


def _sample(
    models: Mapping[str, Score], texts: Sequence[str], round_seconds: float, clock: Clock = time.perf_counter
) -> list[str]:
    """As many texts, evenly spread, as the slowest model scores in `round_seconds`, and 32 at least."""
    probe = list(texts[:64])
    slowest = max(min(_seconds(score, probe, clock) for _ in range(2)) for score in models.values())
    wanted = max(32, int(round_seconds / slowest * len(probe)))
    step = max(1, len(texts) // wanted)
    return list(texts[::step][:wanted])


def _seconds(score: Score, texts: Sequence[str], clock: Clock) -> float:
    start = clock()
    score(texts)
    return clock() - start


def _seconds_and_joules(
    score: Score, texts: Sequence[str], clock: Clock, counter: EnergyCounter | None
) -> tuple[float, list[float]]:
    """Joules are empty without a counter; reading one is outside of the time."""
    before = counter.read() if counter else ()
    spent = _seconds(score, texts, clock)
    return spent, [counter.joules(before, counter.read())] if counter else []
