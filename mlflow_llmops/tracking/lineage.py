"""What a run was made from: data sets with their fingerprints, and the model before it."""

import re

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits, Texts

CONTEXTS = {"train": "training", "test": "evaluation"}


def log_data(data: Splits) -> None:
    """Log the train and test splits as data sets of the active run, with counts and fingerprints; texts stay here."""
    for split, context in CONTEXTS.items():
        mlflow.log_input(dataset_of(data, split), context=context)
    overlap = {names.OVERLAP: str(data.overlap_removed), names.OVERLAP_KEPT: str(data.overlap_kept)}
    mlflow.set_tags({names.DATA_FINGERPRINT: data.fingerprint, **overlap})


def torch_origin(model_id: str | None) -> str | None:
    """The last torch model that a logged model was made from, by the tags of the runs; None where nobody knows it."""
    seen = set[str]()
    while model_id and model_id not in seen:
        seen.add(model_id)
        tags = tags_of(model_id)
        reference, model_id = tags.get(names.SOURCE_MODEL), tags.get(names.SOURCE_MODEL_ID)
        if model_id is None:
            return reference  # of no tracking store: a folder or an id of the hub
        if tags_of(model_id).get(names.KIND) == "torch":
            # an alias may be another version's by now
            return reference if re.fullmatch(r"models:/[^@]+/[1-9]\d*", reference or "") else f"models:/{model_id}"
    return None


def tags_of(model_id: str) -> dict[str, str]:
    """Of the run that logged a model; none where it is of another store, or deleted."""
    try:
        run_id = MlflowClient().get_logged_model(model_id).source_run_id
        return dict(mlflow.get_run(run_id).data.tags) if run_id else {}
    except MlflowException:
        return {}


def dataset_of(data: Splits, split: str = "test") -> PandasDataset:
    """What a metric of that split is linked to, by its name and fingerprint."""
    found: Texts = getattr(data, split)
    frame = pd.DataFrame({"text": found.texts, **({"label": found.labels} if found.labels else {})})
    targets = "label" if found.labels else None
    return from_pandas(frame, name=f"{data.source} {split}", targets=targets, digest=found.fingerprint)


def in_this_store(model_id: str | None) -> str | None:
    """The id where the tracking store has that logged model, to which metrics can be linked; None otherwise."""
    try:
        return MlflowClient().get_logged_model(model_id).model_id if model_id else None
    except MlflowException:
        return None
