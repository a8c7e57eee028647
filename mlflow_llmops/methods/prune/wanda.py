"""Zeros where weights are small beside what they are multiplied with."""

from dataclasses import dataclass
from typing import Any

import torch

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._inputs import collected, inner_layers, squares
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.prune._masks import Masks, in_rows
from mlflow_llmops.methods.prune._pruning import Scores
from mlflow_llmops.methods.prune._unstructured import Unstructured
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Wanda(Unstructured):
    """A weight counts by its size times the norm of its input over texts of the train split, among those of the same
    output (Sun et al., arXiv:2306.11695). The norms are those of the unpruned network, so that they can be kept and
    another fraction can have the same.

    Dense hardware gains neither size nor speed from zeros, which the run says.
    """

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        """The squared norm of each input, (inputs,), by layer."""
        return collected(model.network, inner_layers(model.network), tensors(model, texts.texts), squares)

    def masks(self, model: TextModel, layers: dict[str, Any], scores: Scores, fraction: float) -> Masks:
        return {
            name: in_rows(importance(unit_weights(layer, outputs=True).detach(), scores[name]), fraction, self.zeros)
            for name, layer in layers.items()
        }


def importance(weight: torch.Tensor, squared_norms: torch.Tensor) -> torch.Tensor:
    """|W| times the norm of the input, (outputs, inputs)."""
    return weight.abs() * squared_norms.sqrt()
