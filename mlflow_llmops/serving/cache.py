"""Answers that were given before, the least recently used ones forgotten."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from mlflow_llmops.serving import metrics


class Cache:
    """`size` answers, by whatever makes them what they are; 0 keeps none."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """None where it is not there."""
        found = self.kept.get(key)
        if found is None:
            metrics.misses.inc()
        else:
            metrics.hits.inc()
            self.kept.move_to_end(key)
        return found

    def keep(self, key: Hashable, answer: Any) -> None:
        self.kept[key] = answer
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
