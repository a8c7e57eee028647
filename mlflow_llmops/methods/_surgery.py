"""Where the feed-forward layers of each model family are, and how to cut rows and columns of a layer for real."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mlflow_llmops.errors import ModelError


@dataclass(frozen=True)
class FeedForward:
    """The layers that write the units of one block (one, or gate and up), and the one that reads them."""

    writers: tuple[nn.Module, ...]
    reader: nn.Module


@dataclass(frozen=True)
class Family:
    """Paths inside a block of the family, and the config's name for the number of units."""

    writers: tuple[str, ...]
    reader: str
    units: str = "intermediate_size"


_BERT_LIKE = Family(("intermediate.dense",), "output.dense")
FAMILIES = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE,
    "xlm-roberta": _BERT_LIKE,
    "electra": _BERT_LIKE,
    "distilbert": Family(("ffn.lin1",), "ffn.lin2", "hidden_dim"),
    "gpt2": Family(("mlp.c_fc",), "mlp.c_proj", "n_inner"),
    "llama": Family(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    "mistral": Family(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    "qwen2": Family(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
}


def family_of(net: PreTrainedModel) -> Family:
    """Raises ModelError, naming the known ones, for a family that is not in the table."""
    kind = net.config.model_type
    if kind not in FAMILIES:
        raise ModelError(f"the model family {kind} cannot be cut yet; those that can: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def feed_forwards(net: PreTrainedModel) -> list[FeedForward]:
    """The feed-forward layers, block by block."""
    family = family_of(net)
    found = []
    for module in net.modules():
        try:
            writers = tuple(module.get_submodule(path) for path in family.writers)
            reader = module.get_submodule(family.reader)
        except AttributeError:
            continue
        if isinstance(reader, nn.Linear | Conv1D):
            found.append(FeedForward(writers, reader))
    return found


def unit_weights(layer: nn.Module, outputs: bool) -> torch.Tensor:
    """The weights as (units, others), by output or by input unit; Conv1D of GPT-2 stores them transposed."""
    weight: torch.Tensor = require_linear(layer).weight
    by_output = weight.T if isinstance(layer, Conv1D) else weight
    return by_output if outputs else by_output.T


def keep_units(module: nn.Module, kept: torch.Tensor, outputs: bool) -> None:
    """Cut the layer in place to the output (or input) units at the positions `kept`."""
    layer = require_linear(module)
    axis = int(outputs) if isinstance(layer, Conv1D) else int(not outputs)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(axis, kept).contiguous())
    if outputs and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept].contiguous())
    count = len(kept)
    if isinstance(layer, Conv1D):
        if outputs:
            layer.nf = count
        else:
            layer.nx = count
    elif outputs:
        layer.out_features = count
    else:
        layer.in_features = count


def require_linear(layer: nn.Module) -> Any:
    """The layer itself. Raises ModelError for a layer that is no plain linear one (quantized, masked, adapted)."""
    # a mask or a parametrization keeps the weights under another name
    if not isinstance(layer, nn.Linear | Conv1D) or "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ModelError(f"{type(layer).__name__} cannot be cut; make masks permanent and merge adapters first")
    return layer
