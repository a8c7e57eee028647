"""Whether the timing can be trusted: forty trials of a model against itself and against one that is 5 % slower.

The machine is simulated, so that a busy one never decides: its clock goes on by the work, times a slow drift, a jitter,
and interruptions. `benchmarks/trials.py` does the same trials on the machine at hand.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.speed import FEWEST_ROUNDS, SINGLES, Times, latency_speedup, measure_speed, speedup

TEXTS = [f"text {i}" for i in range(2000)]
TRIALS = 40
AT_LEAST = 36


class Machine:
    """A clock that goes on while a model works, by `noise` (a share) more or less, drifting by a third."""

    def __init__(self, seed: int, noise: float) -> None:
        self.random = np.random.default_rng(seed)
        self.noise = noise
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def model(self, milliseconds: float):
        def score(texts: Sequence[str]) -> None:
            work = milliseconds * len(texts) / 1000
            drift = 1 + 0.33 * np.sin(self.now / 60)
            slowed = np.exp(self.random.normal(0, self.noise)) + (self.random.random() < self.noise) * 3
            self.now += work * drift * slowed

        return score


class Periodic(Machine):
    """It is slow in the second and third of each four batches, as A B B A ... would ask one of two models alone."""

    batches = 0

    def model(self, milliseconds: float):
        score = super().model(milliseconds)

        def slow(texts: Sequence[str]) -> None:
            began = self.now
            score(texts)
            if len(texts) > 1:
                self.now += (self.now - began) * (0.1 if self.batches % 4 in (1, 2) else 0)
                self.batches += 1

        return slow


def trial(seed: int, slower: float, noise: float, kind: type[Machine] = Machine) -> tuple[Estimate, Times]:
    machine = kind(seed, noise)
    models = {"baseline": machine.model(1.0), "candidate": machine.model(slower)}
    times = measure_speed(models, TEXTS, len, 10, singles=1, clock=machine.clock, random=np.random.default_rng(seed))
    return speedup(times["baseline"], times["candidate"]), times["candidate"]


def test_a_model_against_itself_covers_one():
    found = [trial(seed, 1.0, 0.02)[0] for seed in range(TRIALS)]
    assert sum(ratio.low <= 1 <= ratio.high for ratio in found) >= AT_LEAST


def test_a_machine_with_a_period_favours_nobody():
    found = [trial(seed, 1.0, 0.02, Periodic)[0] for seed in range(TRIALS)]
    assert sum(ratio.low <= 1 <= ratio.high for ratio in found) >= AT_LEAST


def test_what_slows_all_texts_of_a_round_is_seen_once_and_not_once_for_each():
    covered = 0
    for seed in range(TRIALS):
        random = np.random.default_rng(seed)
        slowed = np.exp(random.normal(0, 0.05, (2, 20, 1)) + random.normal(0, 0.005, (2, 20, SINGLES)))
        baseline, candidate = (Times(each[:, 0], each.ravel(), 1, 1) for each in slowed)
        ratio = latency_speedup(baseline, candidate)
        covered += ratio.low <= 1 <= ratio.high
    assert covered >= AT_LEAST


def test_five_percent_are_found_and_never_with_the_wrong_sign():
    found = [trial(seed, 1.05, 0.02)[0] for seed in range(TRIALS)]
    assert sum(ratio.high < 1 for ratio in found) >= AT_LEAST
    assert not any(ratio.low > 1 for ratio in found)


def test_on_a_noisy_machine_it_cannot_tell():
    found = [trial(seed, 1.05, 0.6)[0] for seed in range(TRIALS)]
    assert sum(ratio.low <= 1 <= ratio.high for ratio in found) >= AT_LEAST / 2
    assert sum(ratio.low > 1 for ratio in found) <= 1


@pytest.mark.parametrize(("noise", "said"), [(0.001, "every interval is within 1 %"), (0.2, "until the time was over")])
def test_it_ends_when_the_intervals_are_narrow_or_the_time_is_over_and_says_which(noise, said):
    _, times = trial(0, 1.05, noise)
    assert said in times.ended
    assert times.ended.startswith(f"{len(times.batch)} rounds in ")
    assert (len(times.batch) == FEWEST_ROUNDS) == (noise < 0.01)
