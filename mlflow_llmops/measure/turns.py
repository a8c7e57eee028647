"""Whose turn it is: in each round all models, in an order that chance draws anew.

Any fixed pattern of turns (A B B A ...) has a period, and what happens on a machine has periods too: where the two
meet, one model is slowed again and again, and an interval is narrow around a wrong ratio. With orders drawn by chance
(a randomised block design; Fisher, 1935) two models that are the same win each round with probability 1/2, whatever
the machine does, so that the interval of their median ratio covers 1 as often as it says.
"""

from collections.abc import Iterable, Iterator

import numpy as np


def turns(labels: Iterable[str], random: np.random.Generator | None = None) -> Iterator[list[str]]:
    """Orders of the labels without end, by `random` where the same ones must come again."""
    drawn, known = random or np.random.default_rng(), list(labels)
    while True:
        yield [known[i] for i in drawn.permutation(len(known))]
