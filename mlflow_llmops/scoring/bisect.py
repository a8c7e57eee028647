"""A batch that fails is cut in half again and again, until only the guilty row has an error."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.scoring.said import said_of

Predict = Callable[[Sequence[str]], Sequence[Any]]
"""From texts to a prediction each; it may raise anything."""
NO_MEMORY = ("out of memory", "bad_alloc", "failed to allocate", "can not allocate", "cannot allocate")
"""What runtimes say that have no MemoryError."""


@dataclass(frozen=True)
class Answer:
    """Of one text: a prediction or an error."""

    value: Any
    error: str | None
    attempts: int
    """Calls of the model that it was in."""
    milliseconds: float
    """Its share of the call that answered it."""


@dataclass
class Budget:
    """How many texts the model gets in a call; a model that runs out of memory makes it smaller for good."""

    texts: int

    def after_no_memory(self, tried: int) -> None:
        self.texts = max(1, tried // 2)


def answers_of(predict: Predict, texts: Sequence[str], budget: Budget) -> list[Answer]:
    """One for each of `texts`. Errors of ours (no key, no such endpoint) are of no row, and are raised."""
    found: dict[int, Answer] = {}
    attempts = [0] * len(texts)
    todo = deque([range(len(texts))] if texts else [])
    while todo:
        part = todo.popleft()
        if len(part) > budget.texts:
            todo.extendleft(reversed([part[i : i + budget.texts] for i in range(0, len(part), budget.texts)]))
            continue
        for i in part:
            attempts[i] += 1
        start = time.perf_counter()
        values, failed = _tried(predict, [texts[i] for i in part])
        milliseconds = (time.perf_counter() - start) * 1000 / len(part)
        if failed is not None and len(part) > 1:
            if is_no_memory(failed):
                budget.after_no_memory(len(part))
            half = len(part) // 2
            todo.extendleft([part[half:], part[:half]])
            continue
        for i, value in zip(part, values, strict=True):
            found[i] = Answer(value, said_of(failed) if failed else None, attempts[i], milliseconds)
    return [found[i] for i in range(len(texts))]


def is_no_memory(error: BaseException) -> bool:
    """Whichever runtime says so."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "outofmemory" in said or any(words in said for words in NO_MEMORY)


def _tried(predict: Predict, texts: Sequence[str]) -> tuple[Sequence[Any], Exception | None]:
    try:
        values = predict(texts)
    except LLMOpsError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever somebody's model raises is an error of its rows
        return [None] * len(texts), error
    if len(values) != len(texts):
        return [None] * len(texts), ValueError(f"the model gave {len(values)} answers to {len(texts)} texts")
    return values, None
