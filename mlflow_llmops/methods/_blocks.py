"""A network's transformer blocks, and a network with fewer of them."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.errors import ModelError


def transformer_blocks(net: PreTrainedModel) -> nn.ModuleList:
    """The list of the network's transformer blocks. Raises ModelError where there is not exactly one such list."""
    depth = net.config.num_hidden_layers
    found = [module for module in net.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(found) != 1:
        raise ModelError(f"{type(net).__name__}: cannot tell its transformer blocks, so none can be left out")
    return found[0]


def keep_blocks(net: PreTrainedModel, kept: Sequence[int]) -> None:
    """Cut the network in place to the blocks at the positions `kept`, which ascend.

    Raises ModelError for a network that scales each block by its number, which would be another one then.
    """
    if getattr(net.config, "scale_attn_by_inverse_layer_idx", False):
        raise ModelError(f"{type(net).__name__} scales its blocks by their numbers, so none can be taken out")
    blocks = transformer_blocks(net)
    for gone in sorted(set(range(len(blocks))) - set(kept), reverse=True):
        del blocks[gone]
    for index, block in enumerate(blocks):  # decoders number their blocks to find them in the key-value cache
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010 - torch's stubs allow no new integers
    if getattr(net.config, "layer_types", None):
        net.config.layer_types = [net.config.layer_types[i] for i in kept]
    net.config.num_hidden_layers = len(kept)
