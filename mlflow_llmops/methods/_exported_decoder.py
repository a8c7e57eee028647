"""What the export of causal models adds: a past in the sample, and a check that reading on gives torch's logits.

One graph reads a prompt and each token after it: a past of length 0 is a past as well.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, DynamicLayer

from mlflow_llmops.batching.generator import pad_left
from mlflow_llmops.batching.scorer import pad
from mlflow_llmops.engines import Arrays, Decoder
from mlflow_llmops.errors import ArtifactMismatch, ModelError
from mlflow_llmops.models.text_model import TextModel

TOLERANCE = 1e-3
"""Largest difference of a logit between torch and its fp32 graph, relative to the largest logit (at least 1)."""
PROBES = ((1, 1, 0), (1, 5, 2), (2, 2, 1), (3, 9, 4), (4, 33, 30), (2, 64, 63), (1, 128, 100), (2, 512, 256))
"""Texts, tokens of the longest, and how many of those are read before the others."""
TRIED = "GPT-2, GPT-NeoX, OPT, BLOOM, Llama, Mistral, Qwen, Phi and Gemma"


def decoder_sample(model: TextModel) -> dict[str, Any]:
    """Two texts that go on after some tokens: a dimension of 1 would be frozen into the graph.

    Raises ModelError for a network whose memory is something else than the keys and values of every token.
    """
    net, past, new = model.network, 5, 3
    known = signature(net.forward).parameters
    layers = DynamicCache(config=net.config).layers
    whole = all(type(layer) is DynamicLayer or _window(layer) >= model.max_length for layer in layers)
    if "past_key_values" not in known or not whole or past + new > model.max_length:
        raise ModelError(
            f"{type(net).__name__} cannot be exported: it does not keep the keys and values of all tokens; "
            f"architectures that are known to work: {TRIED}"
        )
    ids = torch.randint(0, len(model.tokenizer), (2, past + new), generator=torch.Generator().manual_seed(0))
    cache = DynamicCache()
    net(input_ids=ids[:, :past], past_key_values=cache, use_cache=True)
    sample = {"input_ids": ids[:, past:], "attention_mask": torch.ones_like(ids)}
    if "position_ids" in known:
        sample["position_ids"] = torch.arange(past, past + new).repeat(2, 1)
    return {**sample, "past_key_values": cache}


def _window(layer: Any) -> int:
    """How many tokens back a layer looks; 0 for one that does not say."""
    return getattr(layer, "sliding_window", 0) or 0


def check_reading(source: TextModel, exported: TextModel) -> None:
    """Raises ArtifactMismatch where the graph gives other logits than torch: with or without a past, with padding on
    either side, with texts that leave the batch."""
    random = np.random.default_rng(0)
    for texts, length, past in PROBES:
        if length > source.max_length:
            continue
        ids = [random.integers(0, len(source.tokenizer), max(1, length - 3 * row)) for row in range(texts)]
        expected, got = (
            np.concatenate([_at_once(model.run, pad(ids, source.pad_id)), *_read(model.run, ids, source.pad_id, past)])
            for model in (source, exported)
        )
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if expected.shape != got.shape or not float(np.abs(expected - got).max()) <= allowed:
            raise ArtifactMismatch(
                f"the {exported.kind} graph, reading on after {past} of {length} tokens, is off torch's by "
                f"{np.abs(expected - got).max():.2g} ({allowed:.2g} is allowed); try the other runtime"
            )


def _at_once(decoder: Decoder, batch: Arrays) -> np.ndarray:
    """Logits of every token that is no padding, one after the other, of whole texts with padding on the right."""
    return decoder(batch)[batch["attention_mask"] == 1]


def _read(decoder: Decoder, ids: Sequence[np.ndarray], pad_id: int, past: int) -> list[np.ndarray]:
    """The same in three steps, with padding on the left; the first text leaves before the last token."""
    input_ids, mask = pad_left(ids, pad_id)
    reader, width, found = decoder.begin(), input_ids.shape[1], []
    rows = np.arange(len(input_ids))
    steps = [(start, end) for start, end in ((0, past), (past, width - 1), (width - 1, width)) if start < end]
    for start, end in steps:
        going = None
        if start and end == width and len(rows) > 1:
            going = rows = rows[1:]
        logits = reader(input_ids[rows, start:end], mask[rows, :end], going)
        found.append(logits[mask[rows, start:end] == 1].copy())
    return found
