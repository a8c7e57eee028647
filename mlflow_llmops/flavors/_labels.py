"""What a classifier of texts answers as an MLflow pyfunc, whatever it runs on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_llmops.batching.scorer import TextScorer, softmax
from mlflow_llmops.flavors._column import column
from mlflow_llmops.tracking.signature import LABEL, SCORE


class LabelPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call."""

    def __init__(self, scorer: TextScorer, labels: Sequence[str]) -> None:
        self._scorer, self._labels = scorer, labels

    def get_raw_model(self) -> "LabelPredictor":
        """What MLflow's pyfunc wraps, for a server that scores the texts of many requests together."""
        return self

    @property
    def scorer(self) -> TextScorer:
        return self._scorer

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, labels), float32."""
        return self._scorer.logits(texts)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The most likely label of each text and its probability; a null text gets nulls."""
        texts = column(model_input)
        present = [i for i, text in enumerate(texts) if isinstance(text, str)]
        labels: list[str | None] = [None] * len(texts)
        scores = np.full(len(texts), np.nan)
        if present:
            probabilities = softmax(self._scorer.logits([texts[i] for i in present]))
            scores[present] = probabilities.max(axis=1)
            for i, best in zip(present, probabilities.argmax(axis=1), strict=True):
                labels[i] = self._labels[best]
        return pd.DataFrame({LABEL: pd.Series(labels, dtype=object), SCORE: scores})
