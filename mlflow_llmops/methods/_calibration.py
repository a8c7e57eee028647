"""Texts of the train split that a method looks at without training on them."""

from collections.abc import Sequence

import numpy as np
import torch

from mlflow_llmops.batching.scorer import TextScorer, pad
from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.engines import Arrays
from mlflow_llmops.errors import DataError
from mlflow_llmops.models.text_model import TextModel


def calibration_texts(data: Splits, count: int, seed: int) -> Texts:
    """At most `count` texts of the train split, drawn at random.

    Raises DataError where it is empty, and where a drawn text stands in the test split, unless overlap=allow said that
    it may.
    """
    if not len(data.train):
        raise DataError("calibration needs texts of the train split, and it is empty; give data with a train split")
    picked = np.random.default_rng(seed).choice(len(data.train), size=min(count, len(data.train)), replace=False)
    drawn = data.train.pick([int(i) for i in picked])
    leaked = set(drawn.texts) & set(data.test.texts)
    if leaked and not data.overlap_kept:
        raise DataError(
            f"{len(leaked)} of {len(drawn)} texts for calibration stand in the test split, on which the result is "
            "measured; take them out of the train split (overlap=drop does)"
        )
    return drawn


def batches_of_one(model: TextModel, texts: Sequence[str]) -> list[Arrays]:
    """Each text as a batch of its own: padding is no activation to fit."""
    scorer = TextScorer(model.encoder, model.run, model.max_length, model.pad_id, 1)
    return [pad([ids], model.pad_id) for ids in scorer.encode(texts)]


def tensors(model: TextModel, texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """The same for torch."""
    return as_tensors(batches_of_one(model, texts))


def as_tensors(batches: Sequence[Arrays]) -> list[dict[str, torch.Tensor]]:
    """The same numbers, not copied."""
    return [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches]
