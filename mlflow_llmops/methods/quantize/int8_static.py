"""Post-training quantization of weights and activations to int8, with a calibration step; OpenVINO through NNCF."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from transformers.exporters import NNCFOpenVINOQuantizer, NNCFQuantizationConfig

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.hardware import INT8
from mlflow_llmops.methods._exported import tensors
from mlflow_llmops.methods.export.openvino import to_openvino
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Int8Static(Method):
    """Ranges of activations are fixed by running texts of the train split; a text's score stands for itself alone.

    NNCF's model type `transformer` adds SmoothQuant (Xiao et al., arXiv:2211.10438) and fast bias correction.
    """

    gives: ClassVar[str] = "openvino"
    wants: ClassVar[tuple[str, ...]] = INT8

    calibration_texts: Annotated[int, "texts of the train split that set the ranges of activations", Ge(1)] = 128

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        count = min(self.calibration_texts, len(data.train))
        picked = np.random.default_rng(seed).choice(len(data.train), size=count, replace=False)
        calibration = tensors(model, data.train.pick([int(i) for i in picked]).texts)
        quantizer = NNCFOpenVINOQuantizer(NNCFQuantizationConfig(subset_size=count), calibration)
        return to_openvino(model, folder, "int8 static", quantizer)
