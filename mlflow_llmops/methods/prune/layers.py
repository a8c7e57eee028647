"""Structured pruning of whole transformer blocks."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Texts
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._blocks import keep_blocks, transformer_blocks
from mlflow_llmops.methods._calibration import tensors
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._inputs import run_over
from mlflow_llmops.methods._surgery import check_stock, family_of
from mlflow_llmops.methods.prune._groups import most
from mlflow_llmops.methods.prune._importance import at_random, taylor
from mlflow_llmops.methods.prune._pruning import Pruning, Scores
from mlflow_llmops.models.text_model import TextModel

BLOCKS = "blocks"


@dataclass(frozen=True)
class Layers(Pruning):
    """Cut the transformer blocks that change least, then train to win quality back.

    Importance is one minus the cosine between what goes into a block and what comes out of it, over all tokens
    (similarity; Men et al., arXiv:2403.03853), how much the loss moves without it (taylor), or the norm of its weights
    (magnitude).
    """

    fraction: Annotated[float, "share of the blocks that is cut, in (0, 1)", Gt(0), Lt(1)] = 0.5
    count: Annotated[int | None, "blocks cut, in place of fraction; auto: by fraction", Ge(1)] = None
    importance: Annotated[
        Literal["similarity", "taylor", "magnitude", "random"], "what makes a block worth keeping"
    ] = "similarity"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count()

    @property
    def scores_need_texts(self) -> bool:
        return self.importance in ("similarity", "taylor")

    def check_depth(self, model: TextModel) -> None:
        family_of(model.network)
        self._kept(model.network, self.fraction)

    def depth_notes(self, model: TextModel) -> tuple[str, ...]:
        depth = len(transformer_blocks(model.network))
        return (f"{depth - self._kept(model.network, self.fraction)} of {depth} blocks go",)

    def share(self, model: TextModel) -> float:
        depth = len(transformer_blocks(model.network))
        return 1 - self._kept(model.network, self.fraction) / depth

    def amounts(self, model: TextModel) -> tuple[float, ...]:
        depth = len(transformer_blocks(model.network))
        return tuple(gone / depth for gone in range(1, depth))

    def with_fraction(self, fraction: float) -> Self:
        return replace(self, fraction=fraction, count=None)

    def scores(self, model: TextModel, texts: Texts, seed: int) -> Scores:
        blocks = transformer_blocks(model.network)
        if self.importance == "random":
            return at_random({BLOCKS: len(blocks)}, seed)
        if self.importance == "taylor":
            return taylor(model, texts, lambda net: {BLOCKS: _gate_blocks(net)})
        if self.importance == "similarity":
            return {BLOCKS: changes(model, texts)}
        norms = [nn.utils.parameters_to_vector(block.parameters()).detach().norm() for block in blocks]
        return {BLOCKS: torch.stack(norms)}

    def cut(self, model: TextModel, scores: Scores, fraction: float, original: TextModel) -> TextModel:
        kept = self._kept(original.network, fraction)
        if kept < len(transformer_blocks(model.network)):
            keep_blocks(model.network, most(scores[BLOCKS], kept).tolist())
            check_stock(model.network)
        return model

    def _kept(self, net: PreTrainedModel, fraction: float) -> int:
        depth = len(transformer_blocks(net))
        if self.count is not None:
            if self.count >= depth:
                raise ConfigError(f"count={self.count}: the model has {depth} blocks; cut 1 to {depth - 1}")
            return depth - max(1, round(self.count * min(1.0, fraction / self.fraction)))
        gone = round(depth * fraction)
        if gone == 0 and fraction >= self.fraction:
            raise ConfigError(
                f"fraction={self.fraction:g}: nothing would be cut from {depth} blocks; "
                + (f"give at least {1 / depth:.2g}" if depth > 1 else "one block cannot go")
            )
        return max(1, depth - gone)


def changes(model: TextModel, texts: Texts) -> torch.Tensor:
    """One minus the cosine of each block's input and output, its mean over tokens: (blocks,)."""
    net = model.network
    blocks = transformer_blocks(net)
    total = torch.zeros(len(blocks))
    with hooks_as_before(net), torch.no_grad():
        for number, block in enumerate(blocks):

            def add(module, inputs, output, number=number):
                total[number] += (1 - cosine_similarity(inputs[0], _states(output), dim=-1)).sum()

            block.register_forward_hook(add)
        tokens = run_over(net, tensors(model, texts.texts))
    return total / tokens


def _gate_blocks(net: PreTrainedModel) -> torch.Tensor:
    """One factor a block for what it adds; the hooks are the caller's to remove."""
    blocks = transformer_blocks(net)
    gate = torch.ones(len(blocks), requires_grad=True)
    for number, block in enumerate(blocks):

        def scale(module, inputs, output, number=number):
            return torch.lerp(inputs[0], output, gate[number])

        block.register_forward_hook(scale)
    return gate


def _states(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
