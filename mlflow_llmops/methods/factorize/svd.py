"""Linear layers as two of lower rank."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.methods import _session
from mlflow_llmops.methods._calibration import calibration_texts, tensors
from mlflow_llmops.methods._inputs import collected, gram, inner_layers
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.factorize._factorization import Factorization
from mlflow_llmops.methods.factorize._low_rank import (
    Spectrum,
    ranks_by_budget,
    ranks_by_energy,
    spectrum,
    two_layers,
)
from mlflow_llmops.models.text_model import TextModel

BUDGET = 0.5
"""Where neither a budget nor an energy is asked for."""


@dataclass(frozen=True)
class Svd(Factorization):
    """A layer's weights are cut to their largest singular values and become the weights of two layers; those where that
    would not make fewer weights stay whole. With `activation_aware` the values are those of the layer's outputs on
    texts of the train split (Wang et al., SVD-LLM, arXiv:2403.07378), not of its weights alone.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")
    artifact_precision: ClassVar[str] = "fp32, low rank"

    budget: Annotated[
        float | None,
        "share of the layers' weights that may stay, in (0, 1); auto: 0.5, or by energy",
        Gt(0),
        Lt(1),
    ] = None
    energy: Annotated[
        float | None, "share of each layer's squared singular values that stays; auto: by the budget", Gt(0), Lt(1)
    ] = None
    activation_aware: Annotated[bool, "fit the layers' outputs on texts of the train split, not their weights"] = True
    keep: Annotated[str | None, "layers left whole: names or patterns such as *.query, with commas; auto: none"] = None
    calibration_texts: Annotated[int, "texts of the train split that outputs are fitted on", Ge(1)] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.energy is not None:
            raise ConfigError(f"budget={self.budget:g}: energy={self.energy:g} sets the ranks already; give one")

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if not inner_layers(model.network, self.keep):
            raise ModelError(f"keep={self.keep!r} leaves no layer to factorize")
        if self.activation_aware and not len(data.train):
            raise DataError(
                "activation_aware=True needs texts of the train split, and it is empty; give data, or "
                "activation_aware=false"
            )

    def factorized(self, model: TextModel, data: Splits, seed: int) -> TextModel:
        net = deepcopy(model.network)
        layers = inner_layers(net, self.keep)
        products = {}
        if self.activation_aware:
            texts = calibration_texts(data, self.calibration_texts, seed).texts
            products = collected(net, layers, tensors(model, texts), gram)
        spectra = {
            name: spectrum(unit_weights(layer, outputs=True).detach(), products.get(name))
            for name, layer in layers.items()
        }
        ranks = self._ranks(spectra)
        if not any(ranks.values()):
            asked = f"energy={self.energy:g}" if self.energy is not None else f"budget={self.budget or BUDGET:g}"
            raise ConfigError(f"{asked}: no layer would have fewer weights as two; give less")
        put(net, layers, spectra, ranks)
        _session.current().note(
            {"svd.layers": len(layers), "svd.whole": sum(rank is None for rank in ranks.values())}
            | {f"svd.rank.{name}": rank or "whole" for name, rank in ranks.items()}
        )
        return model.with_net(net.eval())

    def _ranks(self, spectra: dict[str, Spectrum]) -> dict[str, int | None]:
        if self.energy is not None:
            return ranks_by_energy(spectra, self.energy)
        return ranks_by_budget(spectra, self.budget or BUDGET)


def put(
    net: PreTrainedModel, layers: dict[str, Any], spectra: dict[str, Spectrum], ranks: dict[str, int | None]
) -> None:
    """Two layers in place of each that has a rank. A layer that a network runs several times is replaced everywhere."""
    made = {
        id(layers[name]): two_layers(spectra[name], rank, layers[name].bias) for name, rank in ranks.items() if rank
    }
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if id(child) in made:
                setattr(module, name, made[id(child)])
    if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
        raise ModelError("the factors of a layer are no numbers; take activation_aware=false")
