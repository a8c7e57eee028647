"""Which texts go through the network together."""

import numpy as np

TOKEN_BUDGET = {"torch": 2048, "onnx": 1024, "openvino": 2048}
"""Padded tokens in a batch, by kind of artifact (`benchmarks/token_budget.py` measures them)."""
NEW_TOKENS = 32
"""Tokens written after a prompt at most, where nothing else is asked for: a default in every logged model."""


def plan_batches(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Split texts into batches of similar length with at most `token_budget` padded tokens each.

    `lengths` is (texts,) in tokens. Gives arrays of positions, every position exactly once; a text that is longer
    than the budget makes a batch of its own. Ties keep their order, so the plan is a function of the lengths.
    """
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        # sorted upwards, so the newest text is the longest of its batch
        if end == len(order) or (end + 1 - start) * max(int(lengths[order[end]]), 1) > token_budget:
            batches.append(order[start:end])
            start = end
    return batches
