"""What a run was made from: data sets with their fingerprints, and the model before it."""

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset, from_pandas

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts

CONTEXTS = {"train": "training", "test": "evaluation"}


def log_data(data: Splits) -> None:
    """Log the train and test splits as data sets of the active run, with counts and fingerprints; texts stay here."""
    for split, context in CONTEXTS.items():
        mlflow.log_input(_dataset(getattr(data, split), f"{data.source} {split}"), context=context)
    overlap = {names.OVERLAP: str(data.overlap_removed), names.OVERLAP_KEPT: str(data.overlap_kept)}
    mlflow.set_tags({names.DATA_FINGERPRINT: data.fingerprint, **overlap})


def _dataset(split: Texts, name: str) -> PandasDataset:
    frame = pd.DataFrame({"text": split.texts, **({"label": split.labels} if split.labels else {})})
    return from_pandas(frame, name=name, targets="label" if split.labels else None, digest=split.fingerprint)
