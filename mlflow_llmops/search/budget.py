"""The time of a search: what a chain will take, by what its parts took so far, and what is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.methods.training import Training
from mlflow_llmops.search.space import Chain, Part

PASS = 4.0
"""A pass of training takes so many times as long as scoring the same texts does: forward, backward (twice that), and
the optimizer."""
MARGIN = 1.2
"""A part may take so many times its seconds so far."""


class OutOfTime(LLMOpsError):
    """A training of a search that took longer than was estimated, stopped at the end of the budget."""


@dataclass
class Budget:
    """`seconds` in all, of which `spent` were used before this process, and `reserve` are kept for the end."""

    seconds: float
    spent: float = 0.0
    reserve: float = 0.0
    clock: Callable[[], float] = time.monotonic
    started: float | None = None
    """By the clock; now where it is not given."""

    def __post_init__(self) -> None:
        self.started = self.clock() if self.started is None else self.started

    def used(self) -> float:
        return self.spent + self.clock() - (self.started or 0.0)

    def left(self) -> float:
        """For trials."""
        return self.seconds - self.reserve - self.used()

    def check(self) -> None:
        """Raises OutOfTime where the end is there."""
        if self.left() <= 0:
            raise OutOfTime(f"stopped while training: the time budget of {self.seconds / 60:.4g} min is over")


@dataclass
class Costs:
    """Seconds seen so far: of a pass over the train split (or, for what trains nothing, of a method), and of measuring.

    `scoring` is what the uncut model takes to score the train split once: what a first training is estimated by.
    """

    scoring: float
    methods: dict[tuple[str, bool], float] = field(default_factory=dict)
    """By name, and whether it trained: the same method without its training is another matter."""
    measuring: float = 0.0

    def saw(self, part: Part, seconds: float) -> None:
        seconds, key = seconds / _passes(part), (part.name, part.trains)
        self.methods[key] = max(seconds, self.methods.get(key, 0.0))

    def saw_measuring(self, seconds: float) -> None:
        self.measuring = max(seconds, self.measuring)

    def of(self, parts: Sequence[Part], measured: int = 1) -> float:
        """What making these and measuring the result so many times will take."""
        return MARGIN * (sum(map(self._of, parts)) + measured * self.measuring)

    def _of(self, part: Part) -> float:
        first = PASS * self.scoring if part.trains else 0.0
        return self.methods.get((part.name, part.trains), first) * _passes(part)


def costs_of(scoring: float, seen: Sequence[tuple[Part, float]], measuring: Sequence[float]) -> Costs:
    """From what a search that was interrupted had seen."""
    costs = Costs(scoring)
    for part, seconds in seen:
        costs.saw(part, seconds)
    for seconds in measuring:
        costs.saw_measuring(seconds)
    return costs


def parts_by_text(chains: Sequence[Chain]) -> Mapping[str, Part]:
    """Every part that the chains are made of, as it is written."""
    return {str(part): part for chain in chains for part in chain}


def _passes(part: Part) -> float:
    return max(part.method.epochs, 0.1) if part.trains and isinstance(part.method, Training) else 1.0
