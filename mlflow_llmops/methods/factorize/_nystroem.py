"""Attention through landmarks: the Gram matrix of n tokens as a product of matrices with m columns (Xiong et al.,
Nystroemformer, arXiv:2102.03902), as one more of transformers' attention functions."""

from functools import partial
from typing import Any

import torch
from torch.nn.functional import one_hot
from transformers import AttentionInterface, AttentionMaskInterface

NEVER = -1e9
"""Added to a score that is not to count; an infinity would make a row without any token no number."""


def nystroem(landmarks: int, iterations: int) -> str:
    """Register the function, and give the name that a network is told to use it by."""
    name = f"nystroem_{landmarks}_{iterations}"
    AttentionInterface.register(name, partial(_attention, landmarks=landmarks, iterations=iterations))
    AttentionMaskInterface.register(name, _mask)
    return name


def _mask(batch_size: int, kv_length: int, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
    """Which tokens are no padding, (texts, tokens): all that is needed where every token sees all others."""
    if attention_mask is None:
        return torch.ones((batch_size, kv_length), dtype=torch.bool, device=kwargs.get("device"))
    return attention_mask.to(torch.bool)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    landmarks: int,
    iterations: int,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """In the form that transformers asks for; dropout of attention is left out, since there are no attentions."""
    if attention_mask is None:
        attention_mask = torch.ones(query.shape[0], query.shape[2], dtype=torch.bool, device=query.device)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = attend(query * scale, key, value, attention_mask, landmarks, iterations)
    return found.transpose(1, 2).contiguous(), None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, landmarks: int, iterations: int
) -> torch.Tensor:
    """Attention of scaled queries, all (texts, heads, tokens, width), to the tokens that are `seen`, (texts, tokens).

    A batch with no more tokens than landmarks gets softmax attention, which costs less there and is exact.
    """
    through = partial(_through, landmarks=landmarks, iterations=iterations)
    if not torch.compiler.is_exporting():
        return (_exact if query.shape[2] <= landmarks else through)(query, key, value, seen)
    # a tensor, because OpenVINO has no rule for comparing sizes
    tokens = torch.ones_like(seen[0], dtype=torch.int64).sum()
    found: torch.Tensor = torch.cond(tokens <= landmarks, _exact, through, (query, key, value, seen))
    return found


def _exact(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return _softmax(query @ key.transpose(-1, -2), seen[:, None, None, :]) @ value


def _through(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, landmarks: int, iterations: int
) -> torch.Tensor:
    """softmax(Q K'^T) softmax(Q' K'^T)^+ softmax(Q' K^T) V, with the landmarks Q' and K'."""
    means = segment_means(seen, landmarks).to(query.dtype)
    there = means.sum(-1) > 0
    some_queries, some_keys = means.unsqueeze(1) @ query, means.unsqueeze(1) @ key
    columns = there[:, None, None, :]
    to_landmarks = _softmax(query @ some_keys.transpose(-1, -2), columns)
    among = _softmax(some_queries @ some_keys.transpose(-1, -2), columns) * there[:, None, :, None]
    to_tokens = _softmax(some_queries @ key.transpose(-1, -2), seen[:, None, None, :])
    return to_landmarks @ (pseudo_inverse(among, iterations) @ (to_tokens @ value))


def segment_means(seen: torch.Tensor, landmarks: int) -> torch.Tensor:
    """The matrix, (texts, landmarks, tokens), that takes means of as many equal stretches of each text as there are
    landmarks. A text with fewer tokens has one for each; the other rows are zero. Padding is in none."""
    count = seen.to(torch.int64)
    place = (count.cumsum(-1) - 1).clamp(min=0)
    segment = torch.div(place * landmarks, count.sum(-1, keepdim=True).clamp(min=landmarks), rounding_mode="floor")
    belongs = one_hot(segment, landmarks).transpose(1, 2) * count.unsqueeze(1)
    return belongs / belongs.sum(-1, keepdim=True).clamp(min=1)


def pseudo_inverse(matrix: torch.Tensor, iterations: int) -> torch.Tensor:
    """Of each square matrix, by the iteration of third order (Razavi et al., 2014) that the paper takes; the scale of
    its start is each matrix's own, so that a text's answer does not depend on its batch-mates."""
    size = matrix.abs().sum(-1).amax(-1) * matrix.abs().sum(-2).amax(-1)
    inverse = matrix.transpose(-1, -2) / size.clamp(min=1e-9)[..., None, None]
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return inverse


def _softmax(scores: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~counted, NEVER).softmax(-1)
