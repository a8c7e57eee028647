"""Distillation of self-attention: the student's tokens relate to each other as the teacher's do."""

from dataclasses import dataclass, replace
from math import gcd, sqrt
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._losses import Loss, Terms
from mlflow_llmops.methods._rows import Batch
from mlflow_llmops.methods._train import train
from mlflow_llmops.methods.distill._attention_states import AttentionListener, attention_family, attention_widths
from mlflow_llmops.methods.distill._distillation import Distillation
from mlflow_llmops.methods.distill._watched import Watch, watched
from mlflow_llmops.models.text_model import TextModel

RELATIONS = ("queries", "keys", "values")


@dataclass(frozen=True)
class Attention(Distillation):
    """The losses of distill.logits plus gamma times MiniLMv2's (Wang et al., arXiv:2012.15828).

    A relation is softmax(X X^T / sqrt(d)) of a layer's queries, keys or values X, split anew into heads of one number,
    so that widths and heads may differ. The student's last layer learns from one of the teacher's.
    """

    by_token: ClassVar[bool] = True

    relation_heads: Annotated[
        int | None, "heads that queries, keys and values are split into; auto: the teacher's, or what all allow", Ge(1)
    ] = None
    teacher_layer: Annotated[int | None, "the teacher's layer to learn from, the first is 1; auto: the last", Ge(1)] = (
        None
    )
    gamma: Annotated[float, "weight of each of the three losses against the teacher's relations", Ge(0)] = 1.0

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = self.student_of(model, data, seed)
        nets = model.network, student.network
        heads = self._heads(*nets)
        causal = any(attention_family(net).causal for net in nets)
        theirs, ours = self._layer(model.network), student.network.config.num_hidden_layers
        rows, dev = self.lessons(model, student, data)
        with watched(model) as watch, hooks_as_before(student.network):
            listeners = AttentionListener(model.network, theirs), AttentionListener(student.network, ours)
            loss = relation_loss(self.answer_loss(model), watch, *listeners, heads, causal, self.gamma)
            train(student, rows, self.schedule(seed), loss, dev)
        return replace(student, fresh=False)

    def _layer(self, teacher: PreTrainedModel) -> int:
        depth = teacher.config.num_hidden_layers
        if self.teacher_layer is not None and self.teacher_layer > depth:
            raise ConfigError(f"teacher_layer={self.teacher_layer}: the teacher has {depth} layers")
        return self.teacher_layer or depth

    def _heads(self, teacher: PreTrainedModel, student: PreTrainedModel) -> int:
        widths = attention_widths(teacher) + attention_widths(student)
        most = gcd(*widths)
        if self.relation_heads is None:
            return gcd(teacher.config.num_attention_heads, most)
        if most % self.relation_heads:
            raise ConfigError(
                f"relation_heads={self.relation_heads} does not divide all widths of teacher and student "
                f"({', '.join(map(str, sorted(set(widths))))}); give a divisor of {most}"
            )
        return self.relation_heads


def relation_loss(
    answers: Loss,
    watch: Watch,
    teacher: AttentionListener,
    student: AttentionListener,
    heads: int,
    causal: bool,
    gamma: float,
) -> Loss:
    """`answers`' terms, and one each for queries, keys and values: KL(teacher's relation || student's), the mean over
    heads and the batch's real tokens."""

    def loss(outputs: ModelOutput, batch: Batch) -> Terms:
        ours = student.last()
        watch(batch)
        mask = batch["attention_mask"]
        terms = {
            name: (gamma, relation_divergence(relation(y, heads, mask, causal), relation(x, heads, mask, causal), mask))
            for name, x, y in zip(RELATIONS, ours, teacher.last(), strict=True)
        }
        return {**answers(outputs, batch), **terms}

    return loss


def relation(states: torch.Tensor, heads: int, mask: torch.Tensor, causal: bool) -> torch.Tensor:
    """How much each token is like the others, as log probabilities (texts, heads, tokens, tokens), from (texts, tokens,
    width); nothing where `mask` (texts, tokens) is 0 and, if `causal`, behind the token."""
    # mixed precision would lose the small differences
    split = states.to(torch.promote_types(states.dtype, torch.float32)).unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = split @ split.mT / sqrt(split.shape[-1])
    seen = mask.bool()[:, None, None, :]
    if causal:
        seen = seen & torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    # half of the least number: a row without any token stays finite
    return log_softmax(scores.masked_fill(~seen, torch.finfo(scores.dtype).min / 2), dim=-1)


def relation_divergence(teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of two relations, the mean over heads and over tokens where `mask` is 1."""
    each = kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean(1)
    return each[mask.bool()].mean()
