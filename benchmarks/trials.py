"""Can the timing be trusted here? A network against itself, and against one that does 5 % more work, forty times each.

    python benchmarks/trials.py [--trials 40] [--seconds 20]

A text is 20 products of two matrices, or 21. Prints how often the interval covers 1, and how often the slowdown is
found, not found, or found with the wrong sign. About half an hour; a busy machine cannot tell 5 %, and says so.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.measure.speed import measure_speed, speedup
from mlflow_llmops.names import HARDWARE

TEXTS = [f"text {i}" for i in range(2000)]
SIDE = 128
MATRIX = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
"""One for both sides: where a matrix lies in memory may be worth some thousandths of the time."""


def network(products: int) -> Callable[[Sequence[str]], object]:
    """Does the same work for every text, whatever it says."""

    def score(texts: Sequence[str]) -> None:
        for _ in texts:
            for _ in range(products):
                MATRIX @ MATRIX

    return score


def trial(products: int, seconds: float) -> tuple[Estimate, str]:
    """A network of 20 products against one of `products`."""
    models = {"baseline": network(20), "candidate": network(products)}
    times = measure_speed(models, TEXTS, len, seconds)
    return speedup(times["baseline"], times["candidate"]), times["candidate"].ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20.0, help="budget of a trial, as of compare")
    given = parser.parse_args()
    print(hardware_tags()[HARDWARE])
    for said, products in (("itself", 20), ("5 % more work", 21)):
        found = [trial(products, given.seconds) for _ in range(given.trials)]
        ratios = [ratio for ratio, _ in found]
        covers = sum(ratio.low <= 1 <= ratio.high for ratio in ratios)
        slower, faster = sum(ratio.high < 1 for ratio in ratios), sum(ratio.low > 1 for ratio in ratios)
        narrow = sum("every interval" in ended for _, ended in found)
        print(f"against {said}: of {len(found)} trials {covers} cover 1, {slower} say slower, {faster} say faster")
        middle = np.median([ratio.value for ratio in ratios])
        print(f"  median ratio {middle:.4f}; {narrow} trials ended early, with narrow intervals", flush=True)


if __name__ == "__main__":
    main()
