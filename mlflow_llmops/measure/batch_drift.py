"""How far a text's score moves with what it is scored together with: other texts, and padding."""

from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.batching.scorer import pad, softmax
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.text_model import TextModel

SAMPLE = 64
BATCHES = (32, 8)
PADDED = 32
"""Texts that are scored with padding: one by one and twice as long, so they cost more."""
NO_DRIFT = 1e-6
"""Below it is rounding of fp32."""


def batch_drift(model: TextModel, texts: Sequence[str]) -> Measurements:
    """The largest difference of a probability between a text scored alone and the same text in a batch.

    Apart from each other: among other texts of its length, without padding; and as a batch of one, padded to twice its
    length. Texts of a batch that differ in length are cut to the shortest of them, alone as together.
    """
    distinct = list(dict.fromkeys(texts))
    step = max(1, len(distinct) // SAMPLE)
    ids = sorted((row for row in scorer_of(model).encode(distinct[::step][:SAMPLE]) if len(row)), key=len)
    together = [_among_others(model, ids[start : start + BATCHES[0]]) for start in range(0, len(ids), BATCHES[0])]
    padded = [_with_padding(model, row) for row in ids[:: max(1, len(ids) // PADDED)]]
    return {names.BATCH_DRIFT: max(together, default=0.0), names.PADDING_DRIFT: max(padded, default=0.0)}


def _among_others(model: TextModel, ids: Sequence[np.ndarray]) -> float:
    shortest = min(map(len, ids))
    rows = [np.append(row[: shortest - 1], row[-1]) for row in ids]  # the last token closes the text
    alone = np.concatenate([model.run(pad([row], model.pad_id)) for row in rows])
    found = 0.0
    for size in BATCHES:
        for start in range(0, len(rows), size):
            batch = slice(start, start + size)
            found = max(found, _furthest(alone[batch], model.run(pad(rows[batch], model.pad_id))))
    return found


def _with_padding(model: TextModel, row: np.ndarray) -> float:
    longer = np.resize(row, min(2 * len(row), model.max_length))
    padded = {name: array[:1] for name, array in pad([row, longer], model.pad_id).items()}
    return _furthest(model.run(pad([row], model.pad_id)), model.run(padded))


def _furthest(logits: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(softmax(logits) - softmax(others)).max(initial=0.0))
