"""From a model reference, whichever of the kinds, to a model in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.reload import Answers

EXPORTED_DATA = "artifact"
"""The folder inside an `exported_text` artifact that holds the graph (a storage format)."""
MLMODEL = "MLmodel"
SCHEMES = ("models:/", "runs:/")


@dataclass(frozen=True)
class LoadedModel:
    """A model, and the reference it came by."""

    model: TextModel
    reference: str
    folder: Path | None = None
    """The whole MLflow artifact on this disk, where it is one."""
    answers: Answers | None = None
    """What it said to the test split in a fresh process, where it was asked already."""

    @property
    def model_id(self) -> str | None:
        """MLflow's id of the logged model, whichever reference it came by; None where it is none."""
        if self.folder is None:
            return None
        found = _described(self.folder).get("model_id")
        return str(found) if found else None


def load_model(
    model: str,
    task: str | None = "text-classification",
    data: Splits | None = None,
    labels: tuple[str, ...] = (),
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a Hugging Face id, a local folder, `models:/name/3`, `models:/name@alias`, `models:/name/Production`,
    `models:/m-<id>`, `runs:/<id>/model`, `builtin:encoder` or `builtin:decoder`.

    `data` gives a new classifier its labels and a builtin model its vocabulary. `task=None` takes that which a logged
    model was logged for.

    Raises ModelError, naming the reference, for a model that is not there or is no text model.
    """
    labels = labels or (data.labels if data else ())
    texts = data.train if data else None
    if not model.startswith(SCHEMES):
        return LoadedModel(load(model, task or "text-classification", labels, texts, trust_remote_code), model)
    folder = download(model)
    found = _load_artifact(folder, model, task or task_of(folder), labels, trust_remote_code)
    return LoadedModel(found, model, folder)


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


def asked(loaded: LoadedModel) -> Answers:
    """What the model said in a fresh process. Raises TypeError where it was not asked."""
    if loaded.answers is None:
        raise TypeError(f"{loaded.reference} was not asked in a fresh process")
    return loaded.answers


def task_of(folder: Path) -> str:
    """What the MLflow model in `folder` was logged for; ours have always said so."""
    flavors = _described(folder)["flavors"] if (folder / MLMODEL).is_file() else {}
    said = [flavor["task"] for flavor in flavors.values() if "task" in flavor]
    return str(said[0]) if said else "text-classification"


def is_ours(folder: Path) -> bool:
    """Whether the MLflow model in `folder` is a text model that `load_model` can load."""
    flavors = _described(folder)["flavors"] if (folder / MLMODEL).is_file() else {}
    return "transformers" in flavors or (folder / EXPORTED_DATA).is_dir()


def _load_artifact(
    folder: Path, reference: str, task: str, labels: tuple[str, ...], trust_remote_code: bool
) -> TextModel:
    if not (folder / MLMODEL).is_file():
        raise ModelError(f"model={reference}: no MLflow model lies there ({MLMODEL} is missing)")
    flavors = _described(folder)["flavors"]
    if "transformers" in flavors:
        # MLflow keeps the tokenizer beside the network, not with it
        tokenizer = folder / "components" / "tokenizer"
        return load(
            str(folder / "model"),
            task,
            labels,
            None,
            trust_remote_code,
            named=reference,
            tokenizer=str(tokenizer),
        )
    if (folder / EXPORTED_DATA).is_dir():
        return load(str(folder / EXPORTED_DATA), task, labels, named=reference)
    raise ModelError(f"model={reference} is no text model of ours; its flavors are: {', '.join(flavors)}")


def _described(folder: Path) -> dict[str, Any]:
    """MLflow's own description of a logged model."""
    described: dict[str, Any] = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    return described
