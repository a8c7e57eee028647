"""Speed in the calls that a deployer asked about: so many texts of so many tokens at once."""

from collections.abc import Mapping, Sequence

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed_grid import Cell, measure_speed_grid
from mlflow_llmops.models.text_model import TextModel

ROUNDS = 400
"""A 95th percentile has an upper end from 72 calls on."""


def speed_as_asked(
    models: Mapping[str, TextModel], texts: Sequence[str], batch_size: int, length: int, seconds: float
) -> dict[str, Measurements]:
    """Of each model, and as a ratio to the first: the network alone, without its tokenizer, all models in turn.

    Raises ConfigError where a model does not take texts of that length.
    """
    cell = Cell(batch_size, length)
    grid = measure_speed_grid(models, texts, seconds, (cell,), most_rounds=ROUNDS)
    if cell in grid.left_out:
        raise ConfigError(f"length={length}: {grid.left_out[cell]}")
    first = next(iter(models))
    return {
        label: {
            names.ASKED_SPEEDUP: grid.speedup(cell, first, label),
            names.ASKED_TEXTS_PER_S: quantile_interval(1 / taken).scaled(batch_size),
            names.ASKED_LATENCY: quantile_interval(taken * 1000, 0.95),
        }
        for label, taken in grid.seconds[cell].items()
    }
