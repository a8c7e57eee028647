"""The hidden size of a network: everything that writes to its channels or reads them, and how to cut some for real."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.methods._blocks import transformer_blocks
from mlflow_llmops.methods._heads import attentions
from mlflow_llmops.methods._surgery import family_of, keep_units, unit_weights

HEADS = (
    ("base.pooler.dense", "classifier"),
    ("pre_classifier", "classifier"),
    ("classifier.dense", "classifier.out_proj"),
)
"""A layer between the hidden size and a head: as wide, with channels of its own; `base` is the model without head."""
FINAL = ("lm_head", "score")
"""Heads that read the hidden size itself."""


@dataclass(frozen=True)
class Stream:
    """The layers that the hidden channels go through."""

    embeddings: tuple[nn.Embedding, ...]
    norms: tuple[nn.Module, ...]
    readers: tuple[nn.Module, ...]
    writers: tuple[nn.Module, ...]
    own: tuple[nn.Module, nn.Module] | None
    """What writes and what reads the channels between the network and its head, where the head has such."""

    def weights(self) -> Iterator[torch.Tensor]:
        """All that is multiplied with a channel, or makes it: (channels, others) each."""
        yield from (table.weight.detach().T for table in self.embeddings)
        yield from (unit_weights(layer, outputs=False).detach() for layer in self.readers)
        yield from (unit_weights(layer, outputs=True).detach() for layer in self.writers)


def stream(net: PreTrainedModel) -> Stream:
    """Find it by the family's table."""
    family = family_of(net)
    base: Any = net.base_model
    width = net.config.hidden_size
    projected = getattr(base, "embeddings_project", None)  # of ELECTRA, whose embeddings may be narrower
    inside = set(base.embeddings.modules()) if projected is not None else set()
    modules = [module for module in base.modules() if module not in inside]
    readers, writers = [], [projected] if projected is not None else []
    for block in transformer_blocks(net):
        holder = block.get_submodule(family.attention)
        readers += [holder.get_submodule(name) for name in family.projections]
        readers += [block.get_submodule(path) for path in family.writers]
        writers += [block.get_submodule(path) for path in (family.output, family.reader)]
    pairs = ((_at(net, base, first), _at(net, base, second)) for first, second in HEADS)
    own = next((pair for pair in pairs if None not in pair), None)
    last = [_at(net, base, path) for path in FINAL]
    readers += [own[0]] if own else []
    readers += [layer for layer in last if layer is not None]
    if own is None and not any(last):  # a classifier right behind the hidden size
        readers += [layer for layer in [_at(net, base, "classifier")] if layer is not None]
    return Stream(
        tuple(module for module in modules if isinstance(module, nn.Embedding)),
        tuple(module for module in modules if _is_norm(module, width)),
        tuple(readers),
        tuple(writers),
        own,
    )


def keep_channels(net: PreTrainedModel, kept: torch.Tensor, own: torch.Tensor) -> None:
    """Cut the network in place to the hidden channels `kept`, and to as many, `own`, of those that its head has."""
    found = stream(net)
    table = net.get_input_embeddings().weight
    shared = [layer for layer in found.readers if getattr(layer, "weight", None) is table]
    for embedding in found.embeddings:
        cut = embedding.weight.detach()[:, kept].contiguous()
        embedding.weight = nn.Parameter(cut, requires_grad=embedding.weight.requires_grad)
        embedding.embedding_dim = len(kept)
    for norm in found.norms:
        _keep_norm(norm, kept)
    for layer in found.readers:
        keep_units(layer, kept, outputs=False)
    for layer in found.writers:
        keep_units(layer, kept, outputs=True)
    if found.own is not None:
        keep_units(found.own[0], own, outputs=True)
        keep_units(found.own[1], own, outputs=False)
    for layer in shared:  # an output layer that has the embeddings' table has the new one
        layer.weight = net.get_input_embeddings().weight
    config: Any = net.config
    if hasattr(config, "embedding_size") and config.embedding_size == config.hidden_size:
        config.embedding_size = len(kept)
    if getattr(config, "n_inner", 0) is None:  # of GPT-2: it would follow the hidden size
        config.n_inner = 4 * config.hidden_size
    if not family_of(net).tied:  # so would the heads' size, where the config leaves it open
        config.head_dim = attentions(net)[0].size
    config.hidden_size = len(kept)


def _at(net: PreTrainedModel, base: nn.Module, path: str) -> Any:
    """The linear layer there, or None."""
    start: Any = base if path.startswith("base.") else net
    for part in path.removeprefix("base.").split("."):
        start = getattr(start, part, None)
    return start if isinstance(start, nn.Linear) else None


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return "Norm" in type(module).__name__ and weight is not None and tuple(weight.shape) == (width,)


def _keep_norm(norm: Any, kept: torch.Tensor) -> None:
    norm.weight = nn.Parameter(norm.weight.detach()[kept].contiguous())
    if getattr(norm, "bias", None) is not None:
        norm.bias = nn.Parameter(norm.bias.detach()[kept].contiguous())
    if hasattr(norm, "normalized_shape"):
        norm.normalized_shape = (len(kept),)
