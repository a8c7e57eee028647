"""Where a model reference leads: a folder on this disk, a version, a task. No network is loaded here."""

from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from mlflow_llmops.errors import ModelError

EXPORTED_DATA = "artifact"
"""The folder inside an `exported_text` artifact that holds the graph (a storage format)."""
MLMODEL = "MLmodel"
SCHEMES = ("models:/", "runs:/")


def check_there(model: str) -> None:
    """Raises ModelError for a reference or a path with nothing behind it; a hub id is asked when it is loaded."""
    if model.startswith(SCHEMES):
        download(model)
    elif (Path(model).is_absolute() or model.startswith((".", "~"))) and not Path(model).exists():
        raise ModelError(f"model={model}: nothing lies at this path; check it")


def download(reference: str) -> Path:
    """The local folder of a `models:/` or `runs:/` reference. Raises ModelError where there is none."""
    try:
        return Path(mlflow.artifacts.download_artifacts(reference))
    except (MlflowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(
            f"model={reference} is not in the tracking store {mlflow.get_tracking_uri()}: {first}; "
            "look the name up in the MLflow UI, or set MLFLOW_TRACKING_URI"
        ) from error


def pinned(reference: str) -> tuple[str, str]:
    """The reference with a version's number in it, and that number; a reference of another kind and nothing.

    Raises ModelError where a name, an alias or a stage is not in the registry.
    """
    if not reference.startswith("models:/"):
        return reference, ""
    try:
        found = get_model_name_and_version(mlflow.MlflowClient(), reference)
    except MlflowException as error:
        first = str(error).partition("\n")[0][:200]
        raise ModelError(
            f"model={reference} is not in the tracking store {mlflow.get_tracking_uri()}: {first}; "
            "look the name up in the MLflow UI, or set MLFLOW_TRACKING_URI"
        ) from error
    return (f"models:/{found[0]}/{found[1]}", str(found[1])) if len(found) == 2 else (reference, "")


def task_of(folder: Path) -> str:
    """What the MLflow model in `folder` was logged for; ours have always said so."""
    flavors = described(folder)["flavors"] if (folder / MLMODEL).is_file() else {}
    said = [flavor["task"] for flavor in flavors.values() if "task" in flavor]
    return str(said[0]) if said else "text-classification"


def is_ours(folder: Path) -> bool:
    """Whether the MLflow model in `folder` is a text model that `load_model` can load."""
    flavors = described(folder)["flavors"] if (folder / MLMODEL).is_file() else {}
    return "transformers" in flavors or (folder / EXPORTED_DATA).is_dir()


def described(folder: Path) -> dict[str, Any]:
    """MLflow's own description of a logged model."""
    found: dict[str, Any] = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    return found
