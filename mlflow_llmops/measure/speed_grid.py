"""Inference time by batch size and length: the network alone, without tokenizer and planning, all models in turn."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.engines import Arrays
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.measure.speed import FEWEST_ROUNDS
from mlflow_llmops.measure.turns import turns
from mlflow_llmops.models.text_model import TextModel

MOST_ROUNDS = 31
"""More make the interval of a median hardly narrower."""
SHORT_CALL = 0.02
"""Seconds: where any model's call is shorter, each makes two and the second is timed, because the threads of the
runtime before it may still spin, and its weights still fill the caches."""


@dataclass(frozen=True, order=True)
class Cell:
    """So many texts at once, of so many tokens each."""

    texts: int
    tokens: int

    @property
    def size(self) -> int:
        return self.texts * self.tokens

    def __str__(self) -> str:
        return f"{self.texts} text{'s' if self.texts > 1 else ''} of {self.tokens} tokens"


CELLS = tuple(Cell(*cell) for cell in names.SPEEDUP_OF_CELL)


@dataclass(frozen=True)
class SpeedGrid:
    """Seconds of a call, (rounds,), by cell and model, in pairs; and why a cell has none."""

    seconds: Mapping[Cell, Mapping[str, np.ndarray]]
    left_out: Mapping[Cell, str]

    def speedup(self, cell: Cell, baseline: str, candidate: str) -> Estimate:
        """How many times as fast: the median of the rounds' paired ratios."""
        return quantile_interval(self.seconds[cell][baseline] / self.seconds[cell][candidate])

    def speedups(self, baseline: str, candidate: str) -> Measurements:
        """Those of all cells that were measured, under their names."""
        return {
            names.SPEEDUP_OF_CELL[cell.texts, cell.tokens]: self.speedup(cell, baseline, candidate)
            for cell in self.seconds
        }


def measure_speed_grid(
    models: Mapping[str, TextModel],
    texts: Sequence[str],
    seconds: float,
    cells: Sequence[Cell] = CELLS,
    most: float | None = None,
    most_rounds: int = MOST_ROUNDS,
) -> SpeedGrid:
    """Time every model in every cell, for about `seconds` in all, or up to `most` where an interval for every cell
    needs them: small cells first, and those that no time is left for are left out, as are lengths that a model does not
    take.

    A row is a text's token ids, as the model's own tokenizer gives them, repeated or cut to the length of the cell.
    """
    start = time.perf_counter()
    ids = {label: _rows(model, texts, max(cell.texts for cell in cells)) for label, model in models.items()}
    longest = min(model.max_length for model in models.values())
    pace = 0.0  # seconds a token, of the cell before
    shapes: dict[Cell, _Shape] = {}
    left_out: dict[Cell, str] = {}

    def left(of: float) -> float:
        """Seconds that the cells so far do not need."""
        return start + of - time.perf_counter() - FEWEST_ROUNDS * sum(shape.cost for shape in shapes.values())

    for cell in sorted(cells, key=lambda cell: cell.size):
        expected = pace * cell.size
        if cell.tokens > longest:
            left_out[cell] = f"a model takes {longest} tokens at most"
        elif shapes and expected * (1 + FEWEST_ROUNDS) > left(most or seconds):
            needed = expected * FEWEST_ROUNDS
            left_out[cell] = f"{FEWEST_ROUNDS} rounds would take about {needed:.1f} s; raise measure_seconds"
        else:
            shapes[cell] = _shape(models, {label: _batch(ids[label], cell, models[label].pad_id) for label in models})
            pace = shapes[cell].cost / shapes[cell].calls / cell.size
    share = max(0.0, left(seconds)) / max(1, len(shapes))
    rounds = {cell: min(most_rounds, FEWEST_ROUNDS + int(share / shape.cost)) for cell, shape in shapes.items()}
    return SpeedGrid(_timed(models, shapes, rounds), left_out)


@dataclass(frozen=True)
class _Shape:
    """A cell's batch for each model, the calls that a turn of a model makes, and the seconds of a round."""

    batches: Mapping[str, Arrays]
    calls: int
    cost: float


def _shape(models: Mapping[str, TextModel], batches: Mapping[str, Arrays]) -> _Shape:
    """Warms up: a first call of a shape lays out memory."""
    calls = []
    for label, model in models.items():
        first = _seconds(model, batches[label])
        calls.append(first if first > 10 * SHORT_CALL else min(first, _seconds(model, batches[label])))
    times = 2 if min(calls) < SHORT_CALL else 1
    return _Shape(batches, times, times * sum(calls))


def _timed(
    models: Mapping[str, TextModel], shapes: Mapping[Cell, _Shape], rounds: Mapping[Cell, int]
) -> dict[Cell, dict[str, np.ndarray]]:
    """The cells take turns too, so that a busy moment of the machine meets several of them and fills none."""
    order = turns(models)
    seconds: dict[Cell, dict[str, list[float]]] = {cell: {label: [] for label in models} for cell in shapes}
    with tqdm(total=sum(rounds.values()), desc="measuring speed by batch size and length") as bar:
        for number in range(max(rounds.values(), default=0)):
            for cell in (cell for cell, count in rounds.items() if number < count):
                for label in next(order):
                    calls = [_seconds(models[label], shapes[cell].batches[label]) for _ in range(shapes[cell].calls)]
                    seconds[cell][label].append(calls[-1])
                bar.update()
    return {cell: {label: np.array(each) for label, each in found.items()} for cell, found in seconds.items()}


def _rows(model: TextModel, texts: Sequence[str], count: int) -> list[np.ndarray]:
    """Token ids of up to `count` texts, evenly spread, none empty."""
    step = max(1, len(texts) // count)
    found = [row for row in scorer_of(model).encode(texts[::step][:count]) if len(row)]
    return found or [np.array([model.pad_id])]


def _batch(ids: Sequence[np.ndarray], cell: Cell, pad_id: int) -> Arrays:
    return pad([np.resize(ids[row % len(ids)], cell.tokens) for row in range(cell.texts)], pad_id)


def _seconds(model: TextModel, batch: Arrays) -> float:
    start = time.perf_counter()
    model.run(batch)
    return time.perf_counter() - start
