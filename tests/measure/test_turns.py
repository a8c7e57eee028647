"""Every order comes as often as every other, and the same again by the same seed."""

from collections import Counter
from itertools import islice, permutations

import numpy as np

from mlflow_llmops.measure.turns import turns


def orders(seed: int, count: int) -> list[tuple[str, ...]]:
    return [tuple(order) for order in islice(turns("abc", np.random.default_rng(seed)), count)]


def test_all_orders_come_equally_often_and_a_seed_brings_them_again():
    found = Counter(orders(0, 6000))
    assert set(found) == set(permutations("abc"))
    assert all(900 < count < 1100 for count in found.values())
    assert orders(1, 20) == orders(1, 20) != orders(2, 20)
