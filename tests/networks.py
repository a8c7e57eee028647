"""Untrained networks of every family that can be cut, small and seeded."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPE = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SHAPE, **SPECIAL, "num_key_value_heads": 2}
CAUSAL = ("gpt2", "llama", "mistral", "qwen2")


def _made(network: Any, config: Any, depth: str = "num_hidden_layers", **shape: Any) -> Callable[..., Any]:
    return lambda layers, **more: network(config(**{**shape, depth: layers, **more}))


FAMILIES = {
    "bert": _made(BertForSequenceClassification, BertConfig, num_labels=3, **SHAPE),
    "roberta": _made(RobertaForSequenceClassification, RobertaConfig, num_labels=3, pad_token_id=0, **SHAPE),
    "electra": _made(ElectraForSequenceClassification, ElectraConfig, num_labels=3, embedding_size=24, **SHAPE),
    "distilbert": _made(
        DistilBertForSequenceClassification,
        DistilBertConfig,
        "n_layers",
        **{"num_labels": 3, "dim": 32, "n_heads": 4, "hidden_dim": 48},
    ),
    "gpt2": _made(GPT2LMHeadModel, GPT2Config, "n_layer", n_embd=32, n_head=4, **SPECIAL),
    "llama": _made(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=True, **GROUPED),
    "mistral": _made(MistralForCausalLM, MistralConfig, **GROUPED),
    "qwen2": _made(Qwen2ForCausalLM, Qwen2Config, **GROUPED),
}


def untrained(family: str, words: int = 50, layers: int = 3, **more: Any) -> Any:
    """`more` are fields of the family's config."""
    torch.manual_seed(0)
    return FAMILIES[family](layers, vocab_size=words, **more).eval()


def shaken(net: Any, by: float) -> Any:
    """Its weights moved at random: biases start at zero, which would hide one that was cut wrongly."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return net
