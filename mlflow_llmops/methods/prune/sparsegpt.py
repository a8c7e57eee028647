"""Zeros whose loss the weights beside them make good."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Lt

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._inputs import by_block, collected, gram
from mlflow_llmops.methods._surgery import unit_weights
from mlflow_llmops.methods.prune._masks import Masks, Pattern, in_layer, lowest
from mlflow_llmops.methods.prune._pruning import Scores
from mlflow_llmops.methods.prune._unstructured import Unstructured
from mlflow_llmops.models.text_model import TextModel

WIDTH = 128
"""Inputs whose zeros are chosen together, and after which the rest of a layer is brought up to date."""


@dataclass(frozen=True)
class SparseGPT(Unstructured):
    """Weights become zero whose loss changes a layer's outputs least, and later weights of the same output make good
    for it, by the layer's own least squares (Frantar and Alistarh, arXiv:2301.00774): block by block, each on what the
    blocks before it give without their zeros' weights.

    Dense hardware gains neither size nor speed from zeros, which the run says.
    """

    damping: Annotated[float, "share of the mean square of the inputs added to each one's", Gt(0), Lt(1)] = 0.01

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        """The texts as token ids: what a layer sees depends on what was cut before it."""
        batches = tensors(model, texts.texts)
        return {f"{number:06d}": batch["input_ids"] for number, batch in enumerate(batches)}

    def _remembered(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        return self.scores(model, texts, seed)  # texts are no artifact of a run

    def masks(self, model: TextModel, layers: dict[str, Any], scores: Scores, fraction: float) -> Masks:
        batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for _, ids in sorted(scores.items())]
        found: Masks = {}
        for names in by_block(tuple(layers)):
            members = {name: layers[name] for name in names}
            for name, products in collected(model.network, members, batches, gram).items():
                weight = unit_weights(layers[name], outputs=True).detach()
                mended, mask = solve(weight, products, fraction, self.zeros, self.damping)
                weight.copy_(mended)
                found[name] = mask
        return found


def solve(
    weight: torch.Tensor,
    products: torch.Tensor,
    fraction: float,
    pattern: Pattern | None = None,
    damping: float = 0.01,
    width: int = WIDTH,
) -> tuple[torch.Tensor, torch.Tensor]:
    """New weights (outputs, inputs), in fp32, and where they are zero; `products` is the Gram matrix of the inputs.

    `width` inputs at a time have the same share of zeros; a pattern's stretches are chosen one after the other.
    """
    left = weight.float().clone()
    step = width if pattern is None else max(1, width // pattern.of) * pattern.of
    silent = products.diagonal() == 0
    hessian = products + torch.diag(silent.to(products.dtype) + damping * products.diagonal().mean())
    left[:, silent] = 0.0
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian.double())), upper=True).float()
    mask = torch.zeros_like(left, dtype=torch.bool)
    for start in range(0, left.shape[1], step):
        end = min(start + step, left.shape[1])
        if pattern is None:
            mask[:, start:end] = in_layer(_costs(left, upper, start, end), fraction)
        errors = torch.zeros_like(left[:, start:end])
        for place in range(start, end):
            if pattern is not None and (place - start) % pattern.of == 0:
                stretch = place + pattern.of
                mask[:, place:stretch] = lowest(_costs(left, upper, place, stretch), pattern.zeros)
            kept = left[:, place].masked_fill(mask[:, place], 0.0)
            error = (left[:, place] - kept) / upper[place, place]
            left[:, place] = kept
            left[:, place + 1 : end] -= error[:, None] * upper[place, place + 1 : end]
            errors[:, place - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return left.masked_fill(mask, 0.0), mask


def _costs(left: torch.Tensor, upper: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """What the layer's outputs lose where a weight becomes zero, with the later ones making good for it."""
    return (left[:, start:end] / upper.diagonal()[start:end]).square()
