"""Where the feed-forward layers of each model family are, and how to cut rows and columns of a layer for real."""

from copy import deepcopy
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
    attention: str
    """The module that holds the projections, and the numbers of heads and channels that its forward goes by."""
    projections: tuple[str, ...]
    """Inside of it: of queries, keys and values; one where they are one layer."""
    output: str
    """What reads the heads' outputs."""
    units: str = "intermediate_size"
    tied: bool = True
    """The stock class wants heads times head size to be the hidden size."""


_BERT_LIKE = Family(
    writers=("intermediate.dense",),
    reader="output.dense",
    attention="attention.self",
    projections=("query", "key", "value"),
    output="attention.output.dense",
)
_LLAMA_LIKE = Family(
    writers=("mlp.gate_proj", "mlp.up_proj"),
    reader="mlp.down_proj",
    attention="self_attn",
    projections=("q_proj", "k_proj", "v_proj"),
    output="self_attn.o_proj",
    tied=False,
)
_DISTILBERT = Family(
    writers=("ffn.lin1",),
    reader="ffn.lin2",
    attention="attention",
    projections=("q_lin", "k_lin", "v_lin"),
    output="attention.out_lin",
    units="hidden_dim",
)
_GPT2 = Family(
    writers=("mlp.c_fc",),
    reader="mlp.c_proj",
    attention="attn",
    projections=("c_attn",),
    output="attn.c_proj",
    units="n_inner",
)
FAMILIES = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE,
    "xlm-roberta": _BERT_LIKE,
    "electra": _BERT_LIKE,
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
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


def check_stock(net: PreTrainedModel) -> None:
    """Raises ModelError where the class would, from the config, build a network of other shapes: a saved one would not
    load."""
    with torch.device("meta"):
        stock = type(net)(deepcopy(net.config))
    wanted = {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    unlike = [name for name, tensor in net.state_dict().items() if wanted.get(name) != tuple(tensor.shape)]
    if unlike or len(wanted) != len(net.state_dict()):
        raise ModelError(
            f"{type(net).__name__} cannot be cut like this: its config cannot say the new shape of "
            f"{unlike[0] if unlike else 'a layer'}"
        )


def require_linear(layer: nn.Module) -> Any:
    """The layer itself. Raises ModelError for a layer that is no plain linear one (quantized, masked, adapted)."""
    # a mask or a parametrization keeps the weights under another name
    if not isinstance(layer, nn.Linear | Conv1D) or "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ModelError(f"{type(layer).__name__} cannot be cut; make masks permanent and merge adapters first")
    return layer
