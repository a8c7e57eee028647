"""Quantization-aware training: the network learns to be right with rounded numbers, then becomes a static graph."""

from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Lt

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._calibration import calibration_texts, tensors
from mlflow_llmops.methods._fake_quantize import fake_quantized, input_ranges
from mlflow_llmops.methods._layers import weighted_layers
from mlflow_llmops.methods._losses import soft_target_loss
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.quantize.int8_static import Int8Static
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel

LOSS = soft_target_loss(0.3, 0.7, 2.0)
"""Labels, and the answers of the network before it was rounded."""


@dataclass(frozen=True)
class Qat(Training, Int8Static):
    """Some epochs from the trained model with fake quantization in the forward pass and straight gradients (Jacob et
    al., arXiv:1712.05877), taught by the model as it was; then converted as `int8_static` does, by its options.

    NNCF's own training needs a C++ compiler on the user's machine; this needs none.
    """

    epochs: Annotated[float, "passes over the train split", Ge(0)] = 1.0
    token_dropout: Annotated[float, "share of tokens hidden while training", Ge(0), Lt(1)] = 0.0

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        trained = model.with_net(deepcopy(model.network))
        kept = self.kept(model.network)
        rounded = [layer for layer in weighted_layers(trained.network) if layer not in kept]
        samples = tensors(model, calibration_texts(data, self.calibration_texts, seed).texts)
        ranges = input_ranges(trained.network.eval(), samples, rounded)
        rows = rows_of(trained, data.train, teacher_answers(model, data.train))
        dev = rows_of(trained, data.dev, teacher_answers(model, data.dev)) if self.patience else ()
        with fake_quantized(trained.network, ranges):
            train(trained, rows, self.schedule(seed), LOSS, dev, stage="qat")
        static = Int8Static(**{field.name: getattr(self, field.name) for field in fields(Int8Static)})
        return static.apply(trained, data, folder, seed)
