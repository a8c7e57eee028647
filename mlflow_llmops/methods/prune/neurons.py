"""Structured pruning of feed-forward units: the tensors become smaller, the class stays the stock one."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from transformers import PreTrainedModel

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._calibration import calibration_texts, tensors
from mlflow_llmops.methods._losses import soft_target_loss
from mlflow_llmops.methods._rows import rows_of
from mlflow_llmops.methods._surgery import FeedForward, family_of, feed_forwards, keep_units, unit_weights
from mlflow_llmops.methods._teacher import teacher_answers
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel

MULTIPLE = 8
"""Units stay a multiple of this, the width of a vector register in floats."""
RECOVERY_TAU = 2.0
RECOVERY_WEIGHTS = (0.3, 0.7)


@dataclass(frozen=True)
class Neurons(Training):
    """Cut the least important units of every feed-forward layer, as many in each, then train to win quality back.

    Importance is the norm of a unit's weights (magnitude; Han et al., arXiv:1506.02626), or its mean activation on
    train texts times the norm of its outgoing weights (activation). Recovery distils from the unpruned model.
    """

    fraction: Annotated[float, "share of units cut from each feed-forward layer, in (0, 1)", Gt(0), Lt(1)] = 0.5
    importance: Annotated[Literal["magnitude", "activation"], "what makes a unit worth keeping"] = "activation"
    recovery: Annotated[Literal["distill", "none"], "training after the cut: from the unpruned model, or none"] = (
        "distill"
    )
    epochs: Annotated[float, "passes over the train split while recovering", Ge(0)] = 1.0
    token_dropout: Annotated[float, "share of tokens hidden while recovering", Ge(0), Lt(1)] = 0.1
    calibration_texts: Annotated[int, "texts of the train split that activations are taken from", Ge(1)] = 256

    tasks: ClassVar[tuple[str, ...]] = ("text-classification",)

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        net = deepcopy(model.network)
        layers = feed_forwards(net)
        units = unit_weights(layers[0].reader, outputs=False).shape[0]
        keep = max(MULTIPLE, round(units * (1 - self.fraction) / MULTIPLE) * MULTIPLE)
        if keep >= units:
            raise ConfigError(
                f"fraction={self.fraction}: nothing would be cut from {units} units (they go in {MULTIPLE}s)"
            )
        scores = self._scores(model, net, layers, data, seed)
        for layer, score in zip(layers, scores, strict=True):
            kept = torch.topk(score, keep).indices.sort().values
            for writer in layer.writers:
                keep_units(writer, kept, outputs=True)
            keep_units(layer.reader, kept, outputs=False)
        setattr(net.config, family_of(net).units, keep)
        pruned = model.with_net(net.eval())
        if self.recovery == "distill":
            loss = soft_target_loss(*RECOVERY_WEIGHTS, RECOVERY_TAU)
            rows = rows_of(pruned, data.train, teacher_answers(model, data.train))
            dev = rows_of(pruned, data.dev, teacher_answers(model, data.dev)) if self.patience else ()
            train(pruned, rows, self.schedule(seed), loss, dev, stage=names.RECOVER)
        return pruned

    def _scores(
        self, model: TextModel, net: PreTrainedModel, layers: list[FeedForward], data: Splits, seed: int
    ) -> list[torch.Tensor]:
        outgoing = [unit_weights(layer.reader, outputs=False).norm(dim=1) for layer in layers]
        if self.importance == "magnitude":
            incoming = [
                sum(unit_weights(writer, outputs=True).norm(dim=1) for writer in layer.writers) for layer in layers
            ]
            return [inward * outward for inward, outward in zip(incoming, outgoing, strict=True)]
        batches = tensors(model, calibration_texts(data, self.calibration_texts, seed).texts)
        activity = mean_activations(net, layers, batches)
        return [mean * outward for mean, outward in zip(activity, outgoing, strict=True)]


def mean_activations(
    net: PreTrainedModel, layers: list[FeedForward], batches: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """The mean absolute activation of every feed-forward unit, one vector (units,) a layer, over all tokens."""
    sums = [torch.zeros(unit_weights(layer.reader, outputs=False).shape[0]) for layer in layers]
    hooks = []
    for total, layer in zip(sums, layers, strict=True):

        def add(module, inputs, total=total):
            total += inputs[0].detach().abs().flatten(0, -2).sum(0)

        hooks.append(layer.reader.register_forward_pre_hook(add))
    try:
        with torch.no_grad():
            for batch in batches:
                net(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    return [total / tokens for total in sums]
