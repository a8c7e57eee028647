"""Which weights of a layer are zero: how many are chosen, and how they stay zero while the others are trained.

Weights are (outputs, inputs) here, whatever the layer stores.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._surgery import unit_weights

Masks = dict[str, torch.Tensor]
"""By the name of a layer: the weights that are zero, booleans (outputs, inputs)."""


@dataclass(frozen=True)
class Pattern:
    """So many zeros among each so many weights of an output that stand next to each other (Mishra et al.,
    arXiv:2104.08378, for 2 of 4)."""

    zeros: int
    of: int

    @classmethod
    def read(cls, written: str) -> "Pattern":
        """Raises ConfigError for anything but two numbers, such as 2:4."""
        zeros, colon, of = written.partition(":")
        if not (colon and zeros.strip().isdecimal() and of.strip().isdecimal()):
            raise ConfigError(f"pattern={written!r}: give zeros:weights, as 2:4 for 2 zeros among each 4 weights")
        found = cls(int(zeros), int(of))
        if not 0 < found.zeros < found.of:
            raise ConfigError(f"pattern={written!r}: give at least 1 zero and fewer than weights, as in 2:4")
        return found

    def __str__(self) -> str:
        return f"{self.zeros}:{self.of}"


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` lowest of each row as booleans; of equal ones the first, so that a seed fixes all."""
    order = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)


def in_rows(scores: torch.Tensor, fraction: float, pattern: Pattern | None) -> torch.Tensor:
    """As many in each output, or in each stretch of the pattern; scores and mask are (outputs, inputs)."""
    if pattern is None:
        return lowest(scores, round(fraction * scores.shape[1]))
    return lowest(scores.reshape(-1, pattern.of), pattern.zeros).reshape(scores.shape)


def in_layer(scores: torch.Tensor, fraction: float) -> torch.Tensor:
    """As many in the whole layer, wherever they are."""
    return lowest(scores.flatten(), round(fraction * scores.numel())).reshape(scores.shape)


def in_network(scores: Mapping[str, torch.Tensor], fraction: float) -> Masks:
    """As many in all layers together, wherever they are."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    parts = lowest(flat, round(fraction * len(flat))).split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for (name, part) in zip(scores, parts, strict=True)}


def put_zeros(layers: Mapping[str, Any], masks: Masks) -> None:
    """For good: there is no mask any more, only zeros."""
    with torch.no_grad():
        for name, mask in masks.items():
            unit_weights(layers[name], outputs=True).masked_fill_(mask, 0.0)


@contextmanager
def kept_zero(layers: Mapping[str, Any], masks: Masks) -> Iterator[None]:
    """Zeros stay zeros while the network is trained inside: without a gradient neither a step nor its momentum nor
    the decay of weights moves them. The network keeps its names, so its checkpoints are those of any training."""
    hooks = []
    for name, mask in masks.items():
        turned = mask.T if isinstance(layers[name], Conv1D) else mask
        hooks.append(layers[name].weight.register_hook(partial(_without, mask=turned)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        put_zeros(layers, masks)


def _without(gradient: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return gradient.masked_fill(mask, 0.0)
