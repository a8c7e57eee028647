"""Score texts with any network that maps padded token ids to logits, be it torch or an exported graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from mlflow_llmops.batching.plan import plan_batches

Network = Callable[[dict[str, np.ndarray]], np.ndarray]
"""From `input_ids` and `attention_mask`, int64 of shape (texts, tokens), to logits (texts, labels)."""


@dataclass(frozen=True)
class TextScorer:
    """A tokenizer and a network, run over batches of similar length under a token budget."""

    tokenizer: Tokenizer
    network: Network
    max_length: int
    pad_id: int
    token_budget: int

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, truncated to `max_length`, not padded."""
        # A copy's settings would not reach the tokenizer: they are set on every call, which costs microseconds.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_length)
        encoded = self.tokenizer.encode_batch_fast(list(texts))
        return [np.array(item.ids, dtype=np.int64) for item in encoded]

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits in the order of `texts`, (texts, labels) float32; each distinct text is scored once."""
        position_of: dict[str, int] = {}
        positions = [position_of.setdefault(text, len(position_of)) for text in texts]
        if not position_of:
            return np.zeros((0, 0), dtype=np.float32)
        return self.logits_of_ids(self.encode(list(position_of)))[positions]

    def logits_of_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        """The same from token ids, without the search for repeated texts."""
        lengths = np.array([len(item) for item in ids])
        rows: list[np.ndarray | None] = [None] * len(ids)
        for batch in plan_batches(lengths, self.token_budget):
            scored = self.network(pad([ids[position] for position in batch], self.pad_id))
            for position, row in zip(batch, scored, strict=True):
                rows[position] = row
        return np.stack([row for row in rows if row is not None]).astype(np.float32, copy=False)


def pad(ids: Sequence[np.ndarray], pad_id: int) -> dict[str, np.ndarray]:
    """One rectangle of token ids and its mask; an empty text becomes one masked-in padding token."""
    width = max(1, *(len(item) for item in ids)) if len(ids) > 1 else max(1, len(ids[0]))
    input_ids = np.full((len(ids), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, item in enumerate(ids):
        input_ids[row, : len(item)] = item
        attention_mask[row, : max(1, len(item))] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, without overflow."""
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = exponential / exponential.sum(axis=-1, keepdims=True)
    return probabilities
