"""Greedy generation: what a causal model writes after a prompt, how sure it was, and how fast it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlflow_llmops import names
from mlflow_llmops.batching.plan import NEW_TOKENS
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import Times, measure_speed
from mlflow_llmops.models.text_model import TextModel

PROMPT_CHARACTERS = 32
PROMPTS = 32
"""Prompts that a saved model has to complete as the one in memory does."""
TIMED_PROMPTS = 16
"""Prompts that are completed together while time is taken: 32 steps for each take a while on a processor."""
BATCH_SIZE = 32


@dataclass(frozen=True)
class Completion:
    """New token ids with the end token, where one came; by how much the logit of each was ahead of the next best one;
    and the text, as MLflow gives it: without special tokens and without spaces around it."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]
    text: str


def prompts_of(texts: Sequence[str], count: int = PROMPTS) -> tuple[str, ...]:
    """The first words of the first `count` texts, none twice: of the text and not of its tokens, so that models with
    different tokenizers complete the same."""
    heads = (text.strip()[:PROMPT_CHARACTERS] for text in texts)
    cut = (head.rpartition(" ")[0].strip() or head for head in heads)
    return tuple(dict.fromkeys(head for head in cut if head))[:count]


def complete(model: TextModel, prompts: Sequence[str], new_tokens: int = NEW_TOKENS) -> list[Completion]:
    """Complete each prompt greedily with up to `new_tokens` tokens, as the model's own generation settings have it."""
    found = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = prompts[start : start + BATCH_SIZE]
        written = _generate(model, batch, new_tokens, output_scores=True, return_dict_in_generate=True)
        best = torch.stack(written.scores, dim=1).float().topk(2).values
        margins = (best[..., 0] - best[..., 1]).tolist()
        for new, ahead in zip(written.sequences[:, -len(written.scores) :].tolist(), margins, strict=True):
            count = _length(new, model)
            found.append(Completion(tuple(new[:count]), tuple(ahead[:count]), decoded(model, new[:count]).strip()))
    return found


def decoded(model: TextModel, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens."""
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=True))


def measure_generation(
    models: Mapping[str, TextModel], prompts: Sequence[str], seconds: float, new_tokens: int = NEW_TOKENS
) -> dict[str, Times]:
    """Time greedy generation, all models in turn on the same prompts.

    Every model writes exactly `new_tokens` tokens a prompt: one that stops early would look fast.
    """

    def writer(model: TextModel):  # type: ignore[no-untyped-def]
        return lambda batch: _generate(model, batch, new_tokens, min_new_tokens=new_tokens)

    return measure_speed(
        {label: writer(model) for label, model in models.items()},
        list(prompts[:TIMED_PROMPTS]),
        lambda batch: new_tokens * len(batch),
        seconds,
        singles=1,
    )


def generation_measurements(times: Times) -> Measurements:
    """Throughput of all prompts together, and latency of one alone, under their names."""
    return {
        names.GENERATED_TOKENS_PER_S: quantile_interval(1 / times.batch).scaled(times.tokens),
        names.GENERATION_P50: quantile_interval(times.single * 1000),
    }


def _generate(model: TextModel, prompts: Sequence[str], new_tokens: int, **options: Any) -> Any:
    """Prompts are filled up on the left, so that what is new follows the prompt, and keep their last tokens where they
    leave no room."""
    room = max(1, model.max_length - new_tokens)
    ids = [np.array(item[-room:], dtype=np.int64) for item in model.tokenizer(list(prompts))["input_ids"]]
    width = max(len(item) for item in ids)
    input_ids = np.full((len(ids), width), model.pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, item in enumerate(ids):
        input_ids[row, width - len(item) :] = item
        attention_mask[row, width - len(item) :] = 1
    net = model.network.eval()
    with torch.inference_mode():
        return net.generate(
            input_ids=torch.from_numpy(input_ids).to(net.device),
            attention_mask=torch.from_numpy(attention_mask).to(net.device),
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=model.pad_id,
            **options,
        )


def _length(new: Sequence[int], model: TextModel) -> int:
    """Up to the first end token and with it; padding follows."""
    ends = model.network.generation_config.eos_token_id
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return next((i + 1 for i, token in enumerate(new) if token in stops), len(new))
