"""Torch models in MLflow's own transformers flavor: any MLflow loads them, without this package."""

import logging
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.transformers
from mlflow.models.model import ModelInfo

from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.signature import SIGNATURES

REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "numpy")
BATCH_SIZE = 32


def log_model(model: TextModel, name: str) -> ModelInfo:
    """Log network (safetensors) and tokenizer with signature, label names and exact requirements."""
    return mlflow.transformers.log_model(**_described(model), name=name)


def save_model(model: TextModel, path: Path) -> None:
    """The same artifact in a folder, outside of any run."""
    mlflow.transformers.save_model(**_described(model), path=str(path))


def _described(model: TextModel) -> dict[str, Any]:
    # It warns that a model of our own has no card on the hub.
    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)
    return {
        "transformers_model": {"model": _nameless(model.network), "tokenizer": model.tokenizer},
        "task": model.task,
        "signature": SIGNATURES[model.task],
        # without truncation a text that is too long would fail its whole batch
        "model_config": {"truncation": True, "max_length": model.max_length, "batch_size": BATCH_SIZE},
        # given, because MLflow would otherwise import torchvision to infer them
        "pip_requirements": [f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS],
        "metadata": {"llmops_kind": model.kind},
    }


def _nameless(network: Any) -> Any:
    """The same network, weights shared, without the id or path that it was loaded from.

    MLflow would ask the Hugging Face hub for that name's card and license, where there is no network for half a
    minute, and log the name: of a folder of ours, or of a model that ours is no longer.
    """
    nameless = copy(network)
    nameless.config = copy(network.config)
    nameless.config.name_or_path = nameless.name_or_path = ""
    return nameless
