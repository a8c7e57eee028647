"""The flavor that suits a model's kind: MLflow's transformers for torch models, ours for exported ones."""

from pathlib import Path

from mlflow.models.model import ModelInfo

from mlflow_llmops import names
from mlflow_llmops.flavors import exported_text, text
from mlflow_llmops.models.text_model import TextModel


def log_text_model(model: TextModel) -> ModelInfo:
    """Log to the active run."""
    if model.folder is None:
        return text.log_model(model, name=names.MODEL)
    return exported_text.log_model(model.folder, name=names.MODEL)


def save_text_model(model: TextModel, path: Path) -> None:
    """The same artifact in a folder, outside of any run."""
    if model.folder is None:
        text.save_model(model, path)
    else:
        exported_text.save_model(model.folder, path)
