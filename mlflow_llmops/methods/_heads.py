"""Where the attention heads of each family are, and how to cut whole ones, with the keys and values they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.methods._blocks import transformer_blocks
from mlflow_llmops.methods._surgery import Family, family_of, keep_units, unit_weights

HEAD_SIZE = ("attention_head_size", "head_dim")
HEADS = ("num_attention_heads", "n_heads", "num_heads")
CHANNELS = ("all_head_size", "dim", "split_size")
"""What the families' modules call the sizes that their forward goes by."""


@dataclass(frozen=True)
class Attention:
    """The attention of one block: `heads` of `size` channels, in `groups` that share keys and values."""

    holder: Any
    projections: tuple[nn.Module, ...]
    output: nn.Module
    heads: int
    groups: int
    size: int

    @property
    def shared(self) -> int:
        """Heads in a group."""
        return self.heads // self.groups

    def weights(self) -> list[torch.Tensor]:
        """Of queries, keys, values and the output, each as (groups, others)."""
        parts: list[torch.Tensor] = []
        for projection in self.projections:
            by_output = unit_weights(projection, outputs=True).detach()
            parts += by_output.chunk(3) if len(self.projections) == 1 else [by_output]
        parts.append(unit_weights(self.output, outputs=False).detach())
        return [part.reshape(self.groups, -1) for part in parts]


def attentions(net: PreTrainedModel) -> list[Attention]:
    """Block by block. Raises ModelError, naming the known ones, for a family that is not known."""
    family = family_of(net)
    return [_attention(family, block) for block in transformer_blocks(net)]


def _attention(family: Family, block: nn.Module) -> Attention:
    holder, output = block.get_submodule(family.attention), block.get_submodule(family.output)
    projections = tuple(holder.get_submodule(name) for name in family.projections)
    size = next(int(getattr(holder, name)) for name in HEAD_SIZE if hasattr(holder, name))
    heads = unit_weights(output, outputs=False).shape[0] // size
    groups = heads if len(projections) == 1 else unit_weights(projections[1], outputs=True).shape[0] // size
    return Attention(holder, projections, output, heads, groups, size)


def keep_groups(net: PreTrainedModel, kept: Sequence[torch.Tensor]) -> None:
    """Cut the network in place to the groups of heads at the positions `kept` in each block, equally many in all.

    Where the class ties heads to the hidden size, that has to follow, or the result is no network of the class.
    """
    for attention, groups in zip(attentions(net), kept, strict=True):
        _keep(attention, groups)
    count, first = len(kept[0]), attentions(net)[0]
    net.config.num_attention_heads = first.heads
    if getattr(net.config, "num_key_value_heads", None) is not None:
        net.config.num_key_value_heads = count
    if not family_of(net).tied:
        net.config.head_dim = first.size


def _keep(attention: Attention, groups: torch.Tensor) -> None:
    of_queries, of_keys = _rows(groups, attention.shared * attention.size), _rows(groups, attention.size)
    if len(attention.projections) == 1:
        joined = torch.cat([part * attention.heads * attention.size + of_queries for part in range(3)])
        keep_units(attention.projections[0], joined, outputs=True)
    else:
        for projection, rows in zip(attention.projections, (of_queries, of_keys, of_keys), strict=True):
            keep_units(projection, rows, outputs=True)
    keep_units(attention.output, of_queries, outputs=False)
    heads = len(groups) * attention.shared
    for names, value in ((HEADS, heads), (CHANNELS, heads * attention.size)):
        for name in names:
            if hasattr(attention.holder, name):
                setattr(attention.holder, name, value)


def _rows(groups: torch.Tensor, width: int) -> torch.Tensor:
    """The channels of each group."""
    return (groups[:, None] * width + torch.arange(width)).flatten()
