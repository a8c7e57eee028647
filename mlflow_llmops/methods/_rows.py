"""From texts to the batches that a network is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.data.texts import Texts
from mlflow_llmops.models.text_model import TextModel

IGNORED = -100
"""The label of a token that no loss counts."""

Batch = dict[str, torch.Tensor]
"""`input_ids` and `attention_mask` (texts, tokens); `labels`, (texts,) or (texts, tokens) with IGNORED where no loss
looks; `clean_ids`, the tokens before any was hidden; and whatever the rows have beside."""


@dataclass(frozen=True)
class Row:
    """One text as token ids (tokens,), its label (a number, or one a token), and arrays that go along."""

    input_ids: np.ndarray
    labels: int | np.ndarray | None = None
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.input_ids)


def rows_of(model: TextModel, texts: Texts, beside: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Row]:
    """Encode `texts`; labels are their numbers in the model's order, or, for text generation, their own tokens."""
    encoded = encode(model, texts.texts)
    number_of = {label: i for i, label in enumerate(model.labels)}
    rows = []
    for i, ids in enumerate(encoded):
        labels: int | np.ndarray | None = None
        if model.task == "text-generation":
            labels = ids
        elif texts.labels:
            labels = number_of[texts.labels[i]]
        rows.append(Row(ids, labels, {name: arrays[i] for name, arrays in (beside or {}).items()}))
    return rows


def encode(model: TextModel, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, cut to what the model takes; where it generates, whole texts end with their end token,
    so that it learns to stop."""
    encoded = TextScorer(model.encoder, model.run, model.max_length, model.pad_id, 1).encode(texts)
    end = model.tokenizer.eos_token_id
    if model.task != "text-generation" or end is None:
        return encoded
    return [np.append(ids, end) if len(ids) < model.max_length and end not in ids[-1:] else ids for ids in encoded]


def collate(rows: Sequence[Row], model: TextModel) -> Batch:
    """One rectangle of several rows."""
    batch = {"clean_ids": _stack([row.input_ids for row in rows], model.pad_id)}
    batch["attention_mask"] = _stack([np.ones(len(row), dtype=np.int64) for row in rows], 0)
    batch["input_ids"] = batch["clean_ids"]
    first = rows[0].labels
    if isinstance(first, np.ndarray):
        batch["labels"] = _stack([np.asarray(row.labels) for row in rows], IGNORED)
    elif first is not None:
        batch["labels"] = torch.tensor([row.labels for row in rows])
    for name in rows[0].beside:
        batch[name] = _stack([row.beside[name] for row in rows], 0)
    return batch


def hide_tokens(batch: Batch, model: TextModel, share: float) -> Batch:
    """The batch with a share of its input tokens hidden (word dropout; Iyyer et al., 2015), never special ones."""
    ids = batch["clean_ids"]
    if not share:
        return batch
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids, device=ids.device))
    hide = (torch.rand(ids.shape, device=ids.device) < share) & ~special
    known = (model.tokenizer.mask_token_id, model.tokenizer.unk_token_id, model.pad_id)
    token = next(token for token in known if token is not None)
    return {**batch, "input_ids": ids.masked_fill(hide, token)}


def _stack(arrays: Sequence[np.ndarray], filling: float) -> torch.Tensor:
    """Arrays that differ in their first size only, filled up at the end."""
    longest = max(len(array) for array in arrays) if arrays[0].ndim else 0
    if all(array.ndim == 0 or len(array) == longest for array in arrays):
        return torch.from_numpy(np.stack(arrays))
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), filling, dtype=arrays[0].dtype)
    for i, array in enumerate(arrays):
        stacked[i, : len(array)] = array
    return torch.from_numpy(stacked)
