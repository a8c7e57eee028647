"""How texts are cut into pieces, before and after a vocabulary became smaller."""

from collections.abc import Sequence

import numpy as np

from mlflow_llmops import names
from mlflow_llmops.errors import DataError
from mlflow_llmops.measure.intervals import share_interval
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.models.text_model import TextModel


def finer_texts(before: TextModel, after: TextModel, texts: Sequence[str]) -> Measurements:
    """The share of `texts` that have other pieces, as strings: numbers of pieces change with the vocabulary."""
    if not texts:
        raise DataError("there are no texts in evaluation to cut into pieces")
    was, now = (_pieces(model, texts) for model in (before, after))
    return {names.FINER_TEXTS: share_interval(np.array([a != b for a, b in zip(was, now, strict=True)], bool))}


def _pieces(model: TextModel, texts: Sequence[str]) -> list[list[str]]:
    tokenizer = model.encoder
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.tokens for encoding in tokenizer.encode_batch(list(texts))]
