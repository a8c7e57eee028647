"""The queries, keys and values of a layer, listened to while a network runs."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods._surgery import unit_weights


@dataclass(frozen=True)
class AttentionFamily:
    """Inside an attention module, the layers that make queries, keys and values (one: all three, side by side);
    `causal` where a token sees those before it only."""

    layers: tuple[str, ...]
    causal: bool = False


_BERT_LIKE = AttentionFamily(("query", "key", "value"))
_LLAMA_LIKE = AttentionFamily(("q_proj", "k_proj", "v_proj"), causal=True)
ATTENTION_FAMILIES = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE,
    "xlm-roberta": _BERT_LIKE,
    "electra": _BERT_LIKE,
    "mobilebert": _BERT_LIKE,
    "albert": _BERT_LIKE,
    "distilbert": AttentionFamily(("q_lin", "k_lin", "v_lin")),
    "gpt2": AttentionFamily(("c_attn",), causal=True),
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
}


def attention_family(net: PreTrainedModel) -> AttentionFamily:
    """Raises ModelError, naming the known ones, for a family that is not in the table."""
    kind = net.config.model_type
    if kind not in ATTENTION_FAMILIES:
        raise ModelError(
            f"the queries, keys and values of the model family {kind} are not known; "
            f"those that are: {', '.join(ATTENTION_FAMILIES)}; or use distill.hidden"
        )
    return ATTENTION_FAMILIES[kind]


def attention_widths(net: PreTrainedModel) -> tuple[int, int, int]:
    """The widths of a token's queries, keys and values: all heads together."""
    found = [unit_weights(layer, outputs=True).shape[0] for layer in _attentions(net)[0].values()]
    queries, keys, values = [found[0] // 3] * 3 if len(found) == 1 else found
    return queries, keys, values


class AttentionListener:
    """Hears, at every run of `net`, the queries, keys and values of its `layer`, counted from 1.

    Its hooks stay on the network: open it inside `hooks_as_before`. Layers that share weights are told apart by when
    they run. Rotary positions come later and are not heard.
    """

    def __init__(self, net: PreTrainedModel, layer: int) -> None:
        self.layer = layer
        self.names = attention_family(net).layers
        self.runs: dict[str, int] = {}
        self.heard: dict[str, torch.Tensor] = {}
        net.base_model.register_forward_pre_hook(self._forget)
        for attention in _attentions(net):
            for name, module in attention.items():
                module.register_forward_hook(lambda module, inputs, output, name=name: self._hear(name, output))

    def last(self) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of the last run, each (texts, tokens, width)."""
        heard = tuple(self.heard[name] for name in self.names)
        return heard[0].chunk(3, dim=-1) if len(heard) == 1 else heard

    def _forget(self, module: nn.Module, inputs: object) -> None:
        self.runs.clear()
        self.heard.clear()

    def _hear(self, name: str, output: torch.Tensor) -> None:
        self.runs[name] = self.runs.get(name, 0) + 1
        if self.runs[name] == self.layer:
            self.heard[name] = output


def _attentions(net: PreTrainedModel) -> list[dict[str, nn.Module]]:
    names = attention_family(net).layers
    return [
        {name: module.get_submodule(name) for name in names}
        for module in net.modules()
        if set(names) <= dict(module.named_children()).keys()
    ]
