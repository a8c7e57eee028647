"""Attention by landmarks, for long inputs."""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import nn
from transformers import PreTrainedModel

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ModelError
from mlflow_llmops.methods.factorize._factorization import Factorization
from mlflow_llmops.methods.factorize._nystroem import nystroem
from mlflow_llmops.models.text_model import TextModel

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert")
"""Encoders whose attention can be replaced and whose position embeddings are a plain table."""


@dataclass(frozen=True)
class Attention(Factorization):
    """A text of more tokens than landmarks is attended to through the means of as many stretches of it: the Gram
    matrix of all its tokens as a product of two narrow ones around a pseudo-inverse (Xiong et al., Nystroemformer,
    arXiv:2102.03902). Its cost grows with the length, that of softmax attention with its square; shorter texts have
    softmax attention as before.

    From which length on that pays is measured, and the run says so where the model takes none that long.
    """

    for_long_inputs: ClassVar[bool] = True
    smaller: ClassVar[bool] = False
    artifact_precision: ClassVar[str] = "fp32, Nystroem attention"

    landmarks: Annotated[int, "stretches of a text whose means stand for its tokens", Ge(2)] = 64
    iterations: Annotated[int, "steps of the pseudo-inverse, each with four small products", Ge(1)] = 6

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        _check_family(model.network)

    def notes(self, model: TextModel) -> tuple[str, ...]:
        if self.landmarks < model.max_length:
            return super().notes(model)
        said = (
            f"landmarks={self.landmarks}: the model takes {model.max_length} tokens at most, so no text is long enough "
            "for landmarks and nothing but the runtime changes"
        )
        return (*super().notes(model), said)

    def factorized(self, model: TextModel, data: Splits, seed: int) -> TextModel:
        return self._with_landmarks(model)

    def _with_landmarks(self, model: TextModel) -> TextModel:
        net = deepcopy(model.network)
        net.set_attn_implementation(nystroem(self.landmarks, self.iterations))
        return model.with_net(net.eval())

    def rivals(self, model: TextModel, folder: Path, longest: int) -> dict[str, TextModel]:
        long = replace(model, net=stretched(model.network, longest), max_length=longest)
        found = {}
        for label, each in {"softmax": long, "landmarks": self._with_landmarks(long)}.items():
            (folder / label).mkdir()
            found[label] = self.export()(each, folder / label, self.artifact_precision)
        return found


def stretched(net: PreTrainedModel, longest: int) -> PreTrainedModel:
    """A copy that takes `longest` tokens, by repeating its position embeddings: for its speed, not for its answers."""
    copy: Any = deepcopy(net)
    table = next(m for name, m in copy.named_modules() if name.endswith("position_embeddings"))
    beyond = 2 + max(0, table.padding_idx or 0)  # RoBERTa counts from behind its padding token
    rows = torch.arange(longest + beyond) % table.weight.shape[0]
    table.weight = nn.Parameter(table.weight.detach()[rows].contiguous())
    table.num_embeddings = len(rows)
    for name, buffer in list(copy.named_buffers()):
        if name.endswith(("position_ids", "token_type_ids")):
            owner = copy.get_submodule(name.rpartition(".")[0])
            numbers = torch.arange(len(rows)) if name.endswith("position_ids") else torch.zeros(len(rows))
            owner.register_buffer(name.rpartition(".")[2], numbers.to(buffer.dtype).unsqueeze(0), persistent=False)
    copy.config.max_position_embeddings = len(rows)
    return copy


def _check_family(net: PreTrainedModel) -> None:
    if net.config.model_type not in FAMILIES:
        raise ModelError(
            f"the attention of the family {net.config.model_type} cannot be replaced by landmarks; those that can: "
            f"{', '.join(FAMILIES)}"
        )
