"""What a unit is worth: how strongly it answers to texts, or how much the loss would move without it."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._inputs import Reduce, collected
from mlflow_llmops.methods._losses import label_loss, total
from mlflow_llmops.methods._rows import collate, rows_of
from mlflow_llmops.models.text_model import TextModel


def mean_inputs(
    net: PreTrainedModel, readers: Mapping[str, nn.Module], batches: Iterable[dict[str, torch.Tensor]], of: Reduce
) -> dict[str, torch.Tensor]:
    """The mean over all tokens of `of` each reader's input, from (tokens, channels) to (tokens, units)."""
    whole = list(batches)
    tokens = sum(batch["input_ids"].numel() for batch in whole)
    sums = collected(net, readers, whole, lambda read: of(read).sum(0))
    return {name: sums[name] / tokens for name in readers}


def activities(model: TextModel, readers: Mapping[str, nn.Module], texts: Texts, units: int) -> dict[str, torch.Tensor]:
    """The mean over tokens of the norm of each unit's part of what the readers get: (units,) each; the parts lie side
    by side and are equally wide."""
    return mean_inputs(
        model.network, readers, tensors(model, texts.texts), lambda read: read.unflatten(-1, (units, -1)).norm(dim=-1)
    )


def gate_inputs(readers: Mapping[str, nn.Module], units: int) -> dict[str, torch.Tensor]:
    """A factor of 1 for each unit's part of what a reader gets, to take gradients of. The hooks are the caller's to
    remove."""
    gates = {name: torch.ones(units, requires_grad=True) for name in readers}
    for name, reader in readers.items():

        def scale(module, inputs, gate=gates[name]):
            return (inputs[0].unflatten(-1, (units, -1)) * gate[:, None]).flatten(-2), *inputs[1:]

        reader.register_forward_pre_hook(scale)
    return gates


def taylor(
    model: TextModel, texts: Texts, gated: Callable[[PreTrainedModel], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The mean over texts of |dL/dg| for every gate g that `gated` puts into the network: how much the loss on the
    labels moves, to first order, where a unit goes (Michel, Levy and Neubig, arXiv:1905.10650)."""
    net = model.network.eval()
    generates = model.task == "text-generation"
    rows = [row for row in rows_of(model, texts) if len(row) > 1 or not generates]
    with hooks_as_before(net), torch.enable_grad():
        gates = gated(net)
        sums = {name: torch.zeros_like(gate) for name, gate in gates.items()}
        for row in tqdm(rows, desc="gradients of importance"):
            batch = collate([row], model)
            outputs = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            gradients = torch.autograd.grad(total(label_loss(outputs, batch)), list(gates.values()), allow_unused=True)
            for name, gradient in zip(gates, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.abs()
    return {name: found / max(1, len(rows)) for name, found in sums.items()}


def at_random(sizes: Mapping[str, int], seed: int) -> dict[str, torch.Tensor]:
    """No importance at all: what every other one has to beat."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.rand(size, generator=draw) for name, size in sizes.items()}
