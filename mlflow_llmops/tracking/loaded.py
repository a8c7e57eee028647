"""From a model reference, whichever of the kinds, to a model in memory."""

from dataclasses import dataclass
from pathlib import Path

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.models.load import load
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.references import EXPORTED_DATA, MLMODEL, SCHEMES, described, download, task_of
from mlflow_llmops.tracking.reload import Answers


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
        found = described(self.folder).get("model_id")
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


def asked(loaded: LoadedModel) -> Answers:
    """What the model said in a fresh process. Raises TypeError where it was not asked."""
    if loaded.answers is None:
        raise TypeError(f"{loaded.reference} was not asked in a fresh process")
    return loaded.answers


def _load_artifact(
    folder: Path, reference: str, task: str, labels: tuple[str, ...], trust_remote_code: bool
) -> TextModel:
    if not (folder / MLMODEL).is_file():
        raise ModelError(f"model={reference}: no MLflow model lies there ({MLMODEL} is missing)")
    flavors = described(folder)["flavors"]
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
