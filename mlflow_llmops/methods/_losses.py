"""Losses as their terms, so that a run can keep them apart."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax

from mlflow_llmops.methods._rows import IGNORED, Batch

Terms = dict[str, tuple[float, torch.Tensor]]
"""Each term of a loss by name: its weight, and its mean over the batch's texts (or tokens, for text generation)."""

Outputs = Any
"""What a transformers network gives: its `ModelOutput`s share no type with `logits`."""

Loss = Callable[[Outputs, Batch], Terms]
"""From a network's outputs (`logits`; `hidden_states`, `attentions` where asked for) and the batch."""


REST_AT = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
"""One over each temperature at which the mass of the words that are not kept is known: it cannot be told from that at
another one, and taking these words to be equally likely gave a loss that pulled the student towards all of them."""


def total(terms: Terms) -> torch.Tensor:
    """The weighted sum, which training minimises."""
    return torch.stack([weight * value for weight, value in terms.values()]).sum()


def label_loss(outputs: Outputs, batch: Batch) -> Terms:
    """Cross entropy with the labels, or with the tokens that follow."""
    return {"label": (1.0, _label_term(outputs.logits, batch["labels"]))}


def soft_target_loss(alpha: float, beta: float, tau: float) -> Loss:
    """alpha * H(y, softmax(z_s)) + beta * tau^2 * H(softmax(z_t / tau), softmax(z_s / tau)).

    The batch holds `labels` and the teacher's answers: all logits as `teacher`, or the largest of each token as
    `teacher_top` (texts, tokens, k), at `teacher_ids`, with `teacher_rest` (texts, tokens, temperatures), the log of
    the others' summed exponentials at each of `REST_AT`.
    Source: Hinton, Vinyals and Dean, arXiv:1503.02531. The factor tau^2 keeps the two gradients' sizes alike.
    """

    def loss(outputs: Outputs, batch: Batch) -> Terms:
        soft = _top_k_term if "teacher_top" in batch else _soft_term
        return {
            "label": (alpha, _label_term(outputs.logits, batch["labels"])),
            "teacher": (beta * tau**2, soft(outputs.logits, batch, tau)),
        }

    return loss


def top_k_log_probabilities(
    top: torch.Tensor, rest: torch.Tensor, others: int, tau: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log probabilities at temperature `tau` of the k kept logits, (..., k), and of all `others` together, (...)."""
    if others == 0:
        return log_softmax(top / tau, dim=-1), torch.full_like(rest[..., 0], float("-inf"))
    together = _rest_at(rest, others, 1 / tau)
    joined = log_softmax(torch.cat([top / tau, together.unsqueeze(-1)], dim=-1), dim=-1)
    return joined[..., :-1], joined[..., -1]


def _rest_at(rest: torch.Tensor, others: int, inverse: float) -> torch.Tensor:
    """The log of the others' summed exponentials at temperature 1 / `inverse`, (...).

    Exact at each of `REST_AT`, on the line between two of them elsewhere; at 0 it is the log of their number.
    """
    behind = next((i for i, known in enumerate(REST_AT) if inverse <= known), len(REST_AT) - 1)
    before = REST_AT[behind - 1] if behind else 0.0
    low = rest[..., behind - 1] if behind else torch.full_like(rest[..., 0], math.log(others))
    share = (inverse - before) / (REST_AT[behind] - before)
    return torch.lerp(low, rest[..., behind], share)


def _label_term(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.dim() == 3:  # a causal model's logits at a token are about the next one
        return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    return cross_entropy(logits, labels)


def _soft_term(logits: torch.Tensor, batch: Batch, tau: float) -> torch.Tensor:
    if logits.dim() == 2:
        return cross_entropy(logits / tau, softmax(batch["teacher"] / tau, dim=-1))
    counted = batch["labels"][:, 1:] != IGNORED
    answers = softmax(batch["teacher"][:, :-1][counted] / tau, dim=-1)
    return cross_entropy(logits[:, :-1][counted] / tau, answers)


def _top_k_term(logits: torch.Tensor, batch: Batch, tau: float) -> torch.Tensor:
    counted = batch["labels"][:, 1:] != IGNORED
    ids = batch["teacher_ids"][:, :-1][counted].long()
    others = logits.shape[-1] - ids.shape[-1]
    teacher, teacher_rest = top_k_log_probabilities(
        batch["teacher_top"][:, :-1][counted].float(), batch["teacher_rest"][:, :-1][counted].float(), others, tau
    )
    student = log_softmax(logits[:, :-1][counted] / tau, dim=-1)
    kept = student.gather(-1, ids)
    term = -(teacher.exp() * kept).sum(-1)
    if others:
        term = term - teacher_rest.exp() * student.scatter(-1, ids, float("-inf")).logsumexp(-1)
    return term.mean()
