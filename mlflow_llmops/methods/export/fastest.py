"""Export to whichever runtime is faster here."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import DataError
from mlflow_llmops.methods._fastest import TEXTS, fastest
from mlflow_llmops.methods.export.onnx import Onnx
from mlflow_llmops.methods.export.openvino import OpenVino
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel

EXPORTS: dict[str, Method] = {"onnx": Onnx(), "openvino": OpenVino()}


@dataclass(frozen=True)
class Fastest(Method):
    """Both graphs are made and timed in turn on train texts, on this machine; the faster one is the result."""

    gives: ClassVar[str] = "onnx or openvino"
    smaller: ClassVar[bool] = False

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        texts = data.train.texts[:TEXTS]
        if not texts:
            raise DataError("which runtime is faster is measured on train texts, and the train split is empty")
        makers = {name: partial(export.apply, model, data, seed=seed) for name, export in EXPORTS.items()}
        return fastest(makers, texts, folder)
