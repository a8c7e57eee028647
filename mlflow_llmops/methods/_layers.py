"""The layers that hold a network's weights, and where each of them stands in the graph that was made of it."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mlflow_llmops.errors import ModelError


def weighted_layers(net: PreTrainedModel) -> dict[str, Any]:
    """Linear layers by their names in the network; GPT-2 calls its own kind Conv1D. Embeddings are none."""
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def named(net: PreTrainedModel, patterns: str | None) -> tuple[str, ...]:
    """The layers that any of the comma-separated `patterns` (as file names have them) fits, in the network's order.

    Raises ModelError for a pattern that fits none, with the near names.
    """
    known = list(weighted_layers(net))
    found: set[str] = set()
    for pattern in filter(None, map(str.strip, (patterns or "").split(","))):
        fits = [name for name in known if fnmatchcase(name, pattern)]
        if not fits:
            near = get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
            raise ModelError(f"no layer is named {pattern!r}; near ones: {', '.join(near)}")
        found.update(fits)
    return tuple(name for name in known if name in found)


def nodes_of(net: PreTrainedModel, layers: Sequence[str], weights: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """The graph's nodes that compute each of `layers`; `weights` are those of all nodes that multiply with a constant.

    Exporters keep neither names nor the orientation, so a layer is known by its numbers. A layer that a network runs
    several times (ALBERT) has several nodes.

    Raises ModelError for a layer that the graph does not have.
    """
    wanted = weighted_layers(net)
    by_numbers: dict[bytes, list[str]] = {}
    for node, weight in weights.items():
        by_numbers.setdefault(_numbers(weight), []).append(node)
    found = {}
    for layer in layers:
        weight = wanted[layer].weight.detach().float().cpu().numpy()
        nodes = {*by_numbers.get(_numbers(weight), ()), *by_numbers.get(_numbers(weight.T), ())}
        if not nodes:
            raise ModelError(f"layer {layer} is not found in the exported graph, so it cannot be left as it is")
        found[layer] = sorted(nodes)
    return found


def flattened(nodes: Mapping[str, Iterable[str]]) -> list[str]:
    """The nodes of all layers, none twice."""
    return sorted({node for each in nodes.values() for node in each})


def _numbers(weight: np.ndarray) -> bytes:
    return bytes(str(weight.shape), "ascii") + np.ascontiguousarray(weight, dtype=np.float32).tobytes()
