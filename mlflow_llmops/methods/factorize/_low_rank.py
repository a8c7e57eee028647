"""A linear layer as two narrower ones: where to cut its singular values, and how many may stay in all.

Weights are (outputs, inputs); `products` is the Gram matrix of a layer's inputs over the calibration texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

DAMPING = 1e-3
"""Share of the mean square of the inputs added to each: fewer tokens than inputs leave some without any."""

NOTHING = 1e-12
"""Of a layer's energy: what rounding makes of values that are not there."""


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a layer, with what they stand between: weight = left diag(values) right."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def most(self) -> int:
        """The largest rank at which two layers have fewer weights than one: r (outputs + inputs) < outputs inputs."""
        outputs, inputs = self.shape
        return (outputs * inputs - 1) // (outputs + inputs)

    @property
    def shares(self) -> torch.Tensor:
        """Each value's part of the energy, the sum of their squares."""
        energy = self.values.double().square()
        return energy / energy.sum().clamp(min=torch.finfo(torch.float64).tiny)

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, rank) and (rank, inputs), as large as each other."""
        root = self.values[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


def spectrum(weight: torch.Tensor, products: torch.Tensor | None = None) -> Spectrum:
    """Plain, or of the weight times a root of `products`: what a singular value left out there adds to the error of
    the layer's outputs on the calibration texts is its square (Wang et al., SVD-LLM, arXiv:2403.07378; Yuan et al.,
    ASVD, arXiv:2312.05821, scale the inputs alone)."""
    weight = weight.double()
    if products is None:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return Spectrum(left.float(), values.float(), right.float())
    damped = products.double()
    damped = damped + DAMPING * damped.diagonal().mean().clamp(min=1e-12) * torch.eye(len(damped), dtype=damped.dtype)
    root = torch.linalg.cholesky(damped)
    left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
    right = torch.linalg.solve_triangular(root, right, upper=False, left=False)
    return Spectrum(left.float(), values.float(), right.float())


def ranks_by_energy(spectra: Mapping[str, Spectrum], energy: float) -> dict[str, int | None]:
    """The fewest values with that share of a layer's energy; None where two layers would not be smaller."""
    found = {}
    for name, each in spectra.items():
        rank = int((each.shares.cumsum(0) < energy - NOTHING).sum()) + 1
        found[name] = rank if rank <= each.most else None
    return found


def ranks_by_budget(spectra: Mapping[str, Spectrum], budget: float) -> dict[str, int | None]:
    """As much energy as that share of all weights pays for: the values with the most of their layer's energy for each
    weight come first. None where a layer has come to where two would not be smaller.

    Every layer has one value at least, which may be more than the budget.
    """
    allowed = budget * sum(each.shape[0] * each.shape[1] for each in spectra.values())
    ranks: dict[str, int] = dict.fromkeys(spectra, 1)
    spent = sum(_weights(each, 1) for each in spectra.values())
    offers = [
        (float(share) / sum(each.shape), name)
        for name, each in spectra.items()
        for share in each.shares[1 : each.most + 1]
        if share > NOTHING
    ]
    for _, name in sorted(offers, key=lambda offer: -offer[0]):
        rank = ranks[name] + 1
        cost = _weights(spectra[name], rank) - _weights(spectra[name], rank - 1)
        if spent + cost <= allowed:
            spent += cost
            ranks[name] = rank
    return {name: rank if rank <= spectra[name].most else None for name, rank in ranks.items()}


def _weights(each: Spectrum, rank: int) -> int:
    outputs, inputs = each.shape
    return min(rank * (outputs + inputs), outputs * inputs)


def two_layers(each: Spectrum, rank: int, bias: torch.Tensor | None) -> nn.Sequential:
    """The layer's product through `rank` channels."""
    outputs, inputs = each.shape
    outer, inner = each.factors(rank)
    narrow, wide = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias is not None)
    with torch.no_grad():
        narrow.weight.copy_(inner)
        wide.weight.copy_(outer)
        if bias is not None:
            wide.bias.copy_(bias)
    return nn.Sequential(narrow, wide)
