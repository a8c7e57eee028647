"""What a classifier of texts answers as an MLflow pyfunc, whatever it runs on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlflow_llmops.batching.scorer import TextScorer, softmax
from mlflow_llmops.batching.shared_scorer import SharedScorer
from mlflow_llmops.flavors._column import texts_of
from mlflow_llmops.flavors._counts import counts_of
from mlflow_llmops.flavors._handle import Handle
from mlflow_llmops.flavors._nullable import nullable
from mlflow_llmops.flavors._overload import told_to_servers
from mlflow_llmops.tracking.signature import LABEL, SCORE


class Labelling(NamedTuple):
    """A classifier that is open in this process."""

    scorer: SharedScorer
    labels: tuple[str, ...]


class LabelPredictor:
    """`predict` is what MLflow, its server and its Spark UDF call, from as many threads as they like."""

    def __init__(self, handle: Handle[Labelling]) -> None:
        self._handle = handle

    def get_raw_model(self) -> "LabelPredictor":
        """What MLflow's pyfunc wraps, for a server that scores the texts of many requests together."""
        return self

    def forgetful(self) -> "LabelPredictor":
        """The same, asking the network for every text: a stopwatch would time the memo."""
        return LabelPredictor(self._handle.forgetful())

    @property
    def scorer(self) -> TextScorer:
        """The engine itself, for one that gathers and remembers by itself."""
        return self._handle.session.scorer.scorer

    @property
    def labels(self) -> Sequence[str]:
        return self._handle.session.labels

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, labels), float32."""
        with told_to_servers():
            return self._handle.session.scorer.logits(texts)

    def counts(self) -> dict[str, int]:
        """How many texts the memo knew and how many not; how many calls came, in how many runs of the network."""
        return counts_of(self._handle.session.scorer)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The most likely label of each text and its probability; a null text gets nulls."""
        texts = texts_of(model_input)
        present = [i for i, text in enumerate(texts) if isinstance(text, str)]
        labels: list[str | None] = [None] * len(texts)
        scores = np.full(len(texts), np.nan)
        if present:
            probabilities = softmax(self.logits([texts[i] for i in present]))
            scores[present] = probabilities.max(axis=1)
            for i, best in zip(present, probabilities.argmax(axis=1), strict=True):
                labels[i] = self.labels[best]
        return pd.DataFrame({LABEL: nullable(labels, "string"), SCORE: scores})
