"""What the layers of a network get to see: sums over all tokens of the calibration texts."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._layers import named, weighted_layers

Reduce = Callable[[torch.Tensor], torch.Tensor]
"""From a layer's inputs, (tokens, inputs), to something that can be added up."""


def squares(inputs: torch.Tensor) -> torch.Tensor:
    """The squared norm of each input over the tokens, (inputs,)."""
    return inputs.square().sum(0)


def gram(inputs: torch.Tensor) -> torch.Tensor:
    """Of all inputs with each other, (inputs, inputs)."""
    return inputs.T @ inputs


def inner_layers(net: PreTrainedModel, keep: str | None = None) -> dict[str, Any]:
    """The linear layers of the body, without those that `keep` names; the head is small, and an output layer over the
    vocabulary is often the embeddings. Raises ModelError for a pattern in `keep` that fits none."""
    body, left = set(net.base_model.modules()), named(net, keep)
    return {name: layer for name, layer in weighted_layers(net).items() if layer in body and name not in left}


def by_block(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The layers of one block after the other; those outside of all blocks each for itself."""

    def block(name: str) -> str:
        found = re.match(r".*?\.\d+(?=\.)", name)
        return found[0] if found else name

    return (tuple(members) for _, members in groupby(names, block))


def collected(
    net: PreTrainedModel,
    layers: Mapping[str, nn.Module],
    batches: Sequence[Mapping[str, torch.Tensor]],
    reduce: Reduce,
) -> dict[str, torch.Tensor]:
    """`reduce` of each layer's inputs, summed over the batches, in fp32."""
    sums: dict[str, torch.Tensor] = {}
    net.eval()
    with hooks_as_before(net), torch.no_grad():
        for name, layer in layers.items():

            def add(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                found = reduce(inputs[0].detach().flatten(0, -2).float())
                sums[name] = sums[name] + found if name in sums else found

            layer.register_forward_pre_hook(add)
        run_over(net, batches)
    return sums


def run_over(net: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]) -> int:
    """Run the network for what its hooks see; gives the number of tokens."""
    tokens = 0
    for batch in batches:
        net(**{name: tensor.to(net.device) for name, tensor in batch.items()})
        tokens += batch["input_ids"].numel()
    return tokens
