"""What heads and hidden channels are worth, for the methods that cut either or both."""

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._heads import attentions
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._inputs import run_over
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods._width import stream
from mlflow_llmops.methods.prune._importance import activities, at_random, gate_inputs, taylor
from mlflow_llmops.methods.prune._pruning import Scores
from mlflow_llmops.models.text_model import TextModel

Importance = Literal["taylor", "activation", "magnitude", "random"]
CHANNELS, OWN = "channels", "own"
"""Scores of the hidden channels, and of those that only the head has."""


def group_scores(model: TextModel, texts: Texts, importance: str, seed: int) -> Scores:
    """Of each group of heads that share keys and values, (groups,), by the block's number.

    Taylor: how much the loss moves without it (Michel, Levy and Neubig, arXiv:1905.10650). Activation: the mean norm of
    what it gives, times the norm of the weights that read it. Magnitude: the norm of all its weights.
    """
    found = attentions(model.network)
    groups = found[0].groups
    readers = {str(number): attention.output for number, attention in enumerate(found)}
    if importance == "random":
        return at_random(dict.fromkeys(readers, groups), seed)
    if importance == "taylor":
        return taylor(model, texts, lambda net: gate_inputs(_outputs(net), groups))
    if importance == "activation":
        active = activities(model, readers, texts, groups)
        return {name: active[name] * each.weights()[-1].norm(dim=1) for name, each in zip(active, found, strict=True)}
    return {name: torch.cat(each.weights(), dim=1).norm(dim=1) for name, each in zip(readers, found, strict=True)}


def channel_scores(model: TextModel, texts: Texts, importance: str, seed: int) -> Scores:
    """Of each hidden channel, over all layers together, and of each channel that only the head has.

    Activation, as Minitron has it (arXiv:2407.14679): the mean size of what the norms give, summed over them. Taylor:
    how much the loss moves where all norms leave it out. Magnitude: the norm of all weights at it.
    """
    net = model.network
    found = stream(net)
    width = net.config.hidden_size
    own = {OWN: found.own[1]} if found.own else {}
    if importance == "random":
        return at_random(dict.fromkeys((CHANNELS, *own), width), seed)
    if importance == "taylor":
        return taylor(model, texts, lambda net: {CHANNELS: _gate_norms(net), **_gate_own(net)})
    outgoing = {name: unit_weights(layer, outputs=False).detach().norm(dim=1) for name, layer in own.items()}
    if importance == "activation":
        active = activities(model, own, texts, width) if own else {}
        return {CHANNELS: _norm_outputs(model, texts), **{name: active[name] * outgoing[name] for name in own}}
    squares = torch.stack([(part**2).sum(1) for part in found.weights()]).sum(0)
    incoming = {name: unit_weights(found.own[0], outputs=True).detach().norm(dim=1) for name in own if found.own}
    return {CHANNELS: squares.sqrt(), **{name: incoming[name] * outgoing[name] for name in own}}


def most(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """The positions of the `keep` highest, ascending."""
    return torch.topk(scores, keep).indices.sort().values


def _outputs(net: PreTrainedModel) -> dict[str, nn.Module]:
    return {str(number): attention.output for number, attention in enumerate(attentions(net))}


def _norm_outputs(model: TextModel, texts: Texts) -> torch.Tensor:
    net = model.network
    total = torch.zeros(net.config.hidden_size)
    with hooks_as_before(net), torch.no_grad():

        def add(module, inputs, output):
            total.add_(output.detach().abs().flatten(0, -2).sum(0))

        for norm in stream(net).norms:
            norm.register_forward_hook(add)
        tokens = run_over(net, tensors(model, texts.texts))
    return total / tokens


def _gate_norms(net: PreTrainedModel) -> torch.Tensor:
    """One factor a channel for all norms; the hooks are the caller's to remove."""
    gate = torch.ones(net.config.hidden_size, requires_grad=True)
    for norm in stream(net).norms:
        norm.register_forward_hook(lambda module, inputs, output: output * gate)
    return gate


def _gate_own(net: PreTrainedModel) -> dict[str, torch.Tensor]:
    own = stream(net).own
    return gate_inputs({OWN: own[1]}, net.config.hidden_size) if own else {}
