"""Distillation of intermediate layers: the student's hidden states move towards the teacher's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import nn
from torch.nn.functional import cosine_similarity, mse_loss
from transformers.utils import ModelOutput

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._losses import Loss, Terms
from mlflow_llmops.methods._rows import Batch
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.distill._distillation import Distillation
from mlflow_llmops.methods.distill._layers import check_layers, layer_pairs
from mlflow_llmops.methods.distill._watched import Watch, watched
from mlflow_llmops.models.text_model import TextModel

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Hidden(Distillation):
    """The losses of distill.logits plus gamma times the distance of hidden states, a mean over layers and tokens.

    Where widths are equal it is 1 - cosine, as in DistilBERT (Sanh et al., arXiv:1910.01108); elsewhere the squared
    error behind a learned projection, as in TinyBERT (Jiao et al., arXiv:1909.10351), which is thrown away after.
    """

    by_token: ClassVar[bool] = True

    layers: Annotated[str, "who learns from whom: even, last, or pairs student:teacher as 1:2,2:4"] = "even"
    embeddings: Annotated[bool, "compare the embeddings' outputs too"] = False
    match: Annotated[
        Literal["auto", "cosine", "mse"], "distance of two hidden states; auto: cosine where widths are equal, else mse"
    ] = "auto"
    gamma: Annotated[float, "weight of the loss against the teacher's hidden states", Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layers(self.layers)

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = self.student_of(model, data, seed)
        ours, theirs = student.network.config, model.network.config
        pairs = layer_pairs(self.layers, ours.num_hidden_layers, theirs.num_hidden_layers, self.embeddings)
        bridge = projection(ours.hidden_size, theirs.hidden_size, pairs, seed)
        distance = self.match if self.match != "auto" else "cosine" if bridge is None else "mse"
        rows, dev = self.lessons(model, student, data)
        with watched(model, "hidden_states") as watch, hooks_as_before(student.network):
            loss = hidden_loss(self.answer_loss(model), watch, pairs, distance, self.gamma, bridge)
            train(student, rows, self.schedule(seed), loss, dev, wants=("hidden_states",), along=bridge)
        return replace(student, fresh=False)


def projection(ours: int, theirs: int, pairs: Pairs, seed: int) -> nn.ModuleDict | None:
    """Linear maps from the student's width to the teacher's, one for all layers and one for the embeddings."""
    if ours == theirs:
        return None
    torch.manual_seed(seed)
    names = sorted({_bridge_of(layer) for layer, _ in pairs})
    return nn.ModuleDict({name: nn.Linear(ours, theirs, bias=False) for name in names})


def hidden_loss(
    answers: Loss, watch: Watch, pairs: Pairs, distance: str, gamma: float, bridge: nn.ModuleDict | None
) -> Loss:
    """`answers`' terms, and `hidden`: the mean over `pairs` of the mean distance over the batch's real tokens.

    The teacher's states come from `watch`; both have `hidden_states`, (texts, tokens, width) a layer.
    """

    def loss(outputs: ModelOutput, batch: Batch) -> Terms:
        taught = watch(batch)["hidden_states"]
        real = batch["attention_mask"].bool()
        distances = []
        for ours, theirs in pairs:
            states = outputs["hidden_states"][ours][real]
            states = states if bridge is None else bridge[_bridge_of(ours)](states)
            distances.append(DISTANCES[distance](states, taught[theirs][real].to(states.dtype)))
        return {**answers(outputs, batch), "hidden": (gamma, torch.stack(distances).mean())}

    return loss


def cosine_distance(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """The mean of 1 - cosine over tokens, from (tokens, width)."""
    return 1 - cosine_similarity(ours, theirs, dim=-1).mean()


DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cosine": cosine_distance,
    "mse": mse_loss,
}


def _bridge_of(layer: int) -> str:
    return "layers" if layer else "embeddings"
