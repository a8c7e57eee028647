"""Structured pruning of feed-forward units: the tensors become smaller, the class stays the stock one."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._surgery import FeedForward, family_of, feed_forwards, keep_units, unit_weights
from mlflow_llmops.methods.prune._importance import activities, at_random, gate_inputs, taylor
from mlflow_llmops.methods.prune._pruning import Pruning, Scores
from mlflow_llmops.models.text_model import TextModel

MULTIPLE = 8
"""Units stay a multiple of this, the width of a vector register in floats."""


@dataclass(frozen=True)
class Neurons(Pruning):
    """Cut the least important units of every feed-forward layer, as many in each, then train to win quality back.

    Importance is the norm of a unit's weights (magnitude; Han et al., arXiv:1506.02626), its mean activation on train
    texts times the norm of its outgoing weights (activation), or how much the loss moves without it (taylor; Molchanov
    et al., arXiv:1906.10771).
    """

    fraction: Annotated[float, "share of units cut from each feed-forward layer, in (0, 1)", Gt(0), Lt(1)] = 0.5
    importance: Annotated[Literal["activation", "magnitude", "taylor", "random"], "what makes a unit worth keeping"] = (
        "activation"
    )

    @property
    def scores_need_texts(self) -> bool:
        return self.importance in ("activation", "taylor")

    def check_depth(self, model: TextModel) -> None:
        self._kept(units_of(model.network), self.fraction)

    def amounts(self, model: TextModel) -> tuple[float, ...]:
        units = units_of(model.network)
        return tuple(1 - keep / units for keep in range((units - 1) // MULTIPLE * MULTIPLE, 0, -MULTIPLE))

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        layers = feed_forwards(model.network)
        readers = readers_of(model.network)
        units = units_of(model.network)
        if self.importance == "random":
            return at_random(dict.fromkeys(readers, units), seed)
        if self.importance == "taylor":
            return taylor(model, texts, lambda net: gate_inputs(readers_of(net), units))
        outgoing = [unit_weights(layer.reader, outputs=False).detach().norm(dim=1) for layer in layers]
        if self.importance == "activation":
            inward = list(activities(model, readers, texts, units).values())
        else:
            inward = [_incoming(layer) for layer in layers]
        return {name: into * out for name, into, out in zip(readers, inward, outgoing, strict=True)}

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        net = model.network
        keep = self._kept(units_of(original.network), fraction)
        if keep < units_of(net):
            for number, layer in enumerate(feed_forwards(net)):
                kept = torch.topk(scores[str(number)], keep).indices.sort().values
                for writer in layer.writers:
                    keep_units(writer, kept, outputs=True)
                keep_units(layer.reader, kept, outputs=False)
            setattr(net.config, family_of(net).units, keep)
        return model

    def _kept(self, units: int, fraction: float) -> int:
        keep = max(MULTIPLE, round(units * (1 - fraction) / MULTIPLE) * MULTIPLE)
        if keep >= units and fraction >= self.fraction:
            raise ConfigError(
                f"fraction={self.fraction}: nothing would be cut from {units} units (they go in {MULTIPLE}s)"
            )
        return keep


def units_of(net: PreTrainedModel) -> int:
    """Feed-forward units of a layer."""
    return int(unit_weights(feed_forwards(net)[0].reader, outputs=False).shape[0])


def readers_of(net: PreTrainedModel) -> dict[str, nn.Module]:
    """What reads each layer's units, by the layer's number."""
    return {str(number): layer.reader for number, layer in enumerate(feed_forwards(net))}


def _incoming(layer: FeedForward) -> torch.Tensor:
    norm = partial(torch.linalg.vector_norm, dim=1)
    return torch.stack([norm(unit_weights(writer, outputs=True).detach()) for writer in layer.writers]).sum(0)
