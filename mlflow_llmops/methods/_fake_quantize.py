"""Fake quantization: a network computes with rounded weights and inputs, and learns through the rounding."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._layers import weighted_layers

UINT8 = (0, 255)
Range = tuple[float, float]


@dataclass(frozen=True)
class Rounding:
    """What a quantizing method rounds: weights to so many bits, symmetric integers or floats, and the inputs of layers
    to 8 where it does."""

    bits: int = 8
    inputs: bool = True
    floats: bool = False

    @property
    def steps(self) -> int:
        """On either side of 0."""
        return int(2 ** (self.bits - 1) - 1)


INT8 = Rounding()
FP16 = Rounding(16, inputs=False, floats=True)


def input_ranges(
    net: PreTrainedModel, batches: Sequence[Mapping[str, torch.Tensor]], layers: Iterable[str]
) -> dict[str, Range]:
    """The lowest and the highest input that each of `layers` meets; 0 is always inside."""
    modules = weighted_layers(net)
    seen = dict.fromkeys(layers, (0.0, 0.0))

    def watch(layer: str):
        def look(module, inputs):
            low, high = torch.aminmax(inputs[0].detach())
            seen[layer] = (min(seen[layer][0], low.item()), max(seen[layer][1], high.item()))

        return look

    with hooks_as_before(net), torch.no_grad():
        for layer in seen:
            modules[layer].register_forward_pre_hook(watch(layer))
        for batch in batches:
            net(**batch)
    return seen


@contextmanager
def fake_quantized(net: PreTrainedModel, ranges: Mapping[str, Range], rounding: Rounding = INT8) -> Iterator[None]:
    """Inside, the layers named in `ranges` compute as a quantized graph does: inputs rounded to 256 steps of their
    range, weights to 255 (at 8 bits) of each output channel's; gradients pass as if nothing was rounded (Jacob et al.,
    arXiv:1712.05877). The weights themselves stay as they are.
    """
    modules = weighted_layers(net)
    with hooks_as_before(net):
        for layer, (low, high) in ranges.items():
            if rounding.inputs:
                modules[layer].register_forward_pre_hook(_rounded_input(low, high))
            axis = _output_axis(modules[layer])
            rounded = _HalfWeight() if rounding.floats else _RoundedWeight(axis, rounding.steps)
            nn.utils.parametrize.register_parametrization(modules[layer], "weight", rounded, unsafe=True)
        try:
            yield
        finally:
            for layer in ranges:
                nn.utils.parametrize.remove_parametrizations(modules[layer], "weight", leave_parametrized=False)


class _RoundedWeight(nn.Module):
    def __init__(self, axis: int, steps: int) -> None:
        super().__init__()
        self.axis, self.steps = axis, steps

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        peaks = weight.detach().abs().amax(dim=1 - self.axis)
        scales = (peaks / self.steps).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, self.axis, -self.steps, self.steps)


class _HalfWeight(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.half().float()


def _rounded_input(low: float, high: float):
    scale = max(high - low, 1e-12) / UINT8[1]
    zero = min(UINT8[1], max(UINT8[0], round(-low / scale)))

    def hook(module, inputs):
        return torch.fake_quantize_per_tensor_affine(inputs[0], scale, zero, *UINT8), *inputs[1:]

    return hook


def _output_axis(layer: nn.Module) -> int:
    """Conv1D of GPT-2 keeps its weight as (inputs, outputs)."""
    return 0 if isinstance(layer, nn.Linear) else 1
