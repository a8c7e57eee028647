"""Models that are no text models of ours, as a benchmark sees them: from texts to labels, through their pyfunc."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.measure import quality
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.tracking.evaluation import asks_an_endpoint, costs_of, labels_of


@dataclass(frozen=True)
class Outside:
    """A pyfunc, the column that it takes texts in, and whether each call is paid."""

    label: str
    reference: str
    model: Any
    column: str | None
    endpoint: bool

    def predict(self, texts: Sequence[str]) -> Any:
        """As its signature wants them."""
        return self.model.predict(pd.DataFrame({self.column: list(texts)}) if self.column else list(texts))


def load_outside(label: str, reference: str, folder: Path) -> Outside:
    """Raises ModelError for a model that takes more than texts."""
    model = mlflow.pyfunc.load_model(str(folder))
    inputs = model.metadata.get_input_schema()
    columns = inputs.input_names() if inputs is not None and inputs.has_input_names() else []
    if len(columns) > 1:
        raise ModelError(f"{reference} takes {', '.join(columns)}; a benchmark gives one column of texts")
    return Outside(label, reference, model, columns[0] if columns else None, asks_an_endpoint(model))


def measure_outside(outside: Outside, first: Sequence[str], data: Splits) -> Measurements:
    """Quality on the test split, against the baseline's labels `first`, and what it cost; each text is asked once.

    Of an endpoint also texts per second, counted from that one pass, without an interval: each call is paid.
    """
    start = time.perf_counter()
    answers = outside.predict(data.test.texts)
    seconds = time.perf_counter() - start
    said = [label.strip() for label in labels_of(answers)]
    measured = quality.classification(data.test.labels, said) | quality.change(data.test.labels, first, said)
    if isinstance(answers, pd.DataFrame):
        measured |= costs_of(answers)
    return measured | ({names.TEXTS_PER_S: len(said) / seconds} if outside.endpoint else {})
