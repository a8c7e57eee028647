"""Fake quantization is what it says by its formula, lets gradients through, and leaves nothing behind."""

import numpy as np
import torch
from torch import nn

from mlflow_llmops.methods._fake_quantize import Rounding, fake_quantized, input_ranges
from mlflow_llmops.methods._layers import weighted_layers


class Two(nn.Module):
    """Two layers with names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def rounded(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """256 steps from low to high, with 0 on a step, written out."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def rounded_weight(weight: np.ndarray) -> np.ndarray:
    """255 steps of each output's largest weight, written out."""
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    return np.round(weight / scale) * scale


def test_it_equals_the_written_out_formula():
    net, x = Two(), torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    ranges = input_ranges(net, [{"x": x}], ["first", "second"])
    with fake_quantized(net, ranges), torch.no_grad():
        got = net(x).numpy()
    value = x.numpy()
    for name, layer in (("first", net.first), ("second", net.second)):
        value = rounded(value, *ranges[name]) @ rounded_weight(layer.weight.detach().numpy()).T
        value = value + layer.bias.detach().numpy()
        value = np.maximum(value, 0) if name == "first" else value
    np.testing.assert_allclose(got, value, atol=1e-5)


def test_ranges_are_those_of_all_batches_and_hold_zero():
    net = Two()
    batches = [{"x": torch.full((1, 5), 2.0)}, {"x": torch.full((1, 5), 7.0)}]
    assert input_ranges(net, batches, ["first"]) == {"first": (0.0, 7.0)}


def test_gradients_pass_as_if_nothing_was_rounded_and_stop_outside_the_range():
    net = Two()
    x = torch.tensor([[0.5, 0.5, 0.5, 0.5, 9.0]], requires_grad=True)
    with fake_quantized(net, {"first": (0.0, 1.0)}):
        net.first(x).sum().backward()
        (original,) = (p for name, p in net.first.named_parameters() if "original" in name)
        assert torch.count_nonzero(original.grad) == 20
    assert torch.count_nonzero(x.grad) == 4
    assert x.grad[0, 4] == 0


def test_nothing_is_left_and_the_weights_are_as_they_were():
    net, x = Two(), torch.randn(3, 5)
    before, keys = net(x), set(net.state_dict())
    with fake_quantized(net, {"first": (-1.0, 1.0), "second": (0.0, 2.0)}):
        assert not torch.equal(net(x), before)
    assert torch.equal(net(x), before)
    assert set(net.state_dict()) == keys
    assert all(isinstance(layer, nn.Linear) and not layer._forward_pre_hooks for layer in weighted_layers(net).values())


def test_fewer_bits_of_weights_alone():
    net, x = Two(), torch.randn(3, 5)
    weight = net.first.weight.detach().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / 7
    with fake_quantized(net, {"first": (0.0, 1.0)}, Rounding(bits=4, inputs=False)), torch.no_grad():
        got = net.first(x).numpy()
    expected = x.numpy() @ (np.round(weight / scale) * scale).T + net.first.bias.detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)
