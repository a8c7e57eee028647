"""Greedy generation: what a causal model writes after a prompt, how sure it was, and how fast it writes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mlflow_llmops import names
from mlflow_llmops.batching.decoding import Decoding
from mlflow_llmops.batching.generator import Clock, Completion, TextGenerator
from mlflow_llmops.batching.plan import NEW_TOKENS, TOKEN_BUDGET
from mlflow_llmops.measure.intervals import quantile_interval
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.measure.speed import FEWEST_ROUNDS, WARM_UPS
from mlflow_llmops.measure.turns import turns
from mlflow_llmops.models.text_model import TextModel

PROMPT_CHARACTERS = 32
PROMPTS = 32
"""Prompts that a saved model has to complete as the one in memory does."""
TIMED_PROMPTS = 16
"""Prompts that are completed together while time is taken: 32 steps for each take a while on a processor."""


def prompts_of(texts: Sequence[str], count: int = PROMPTS) -> tuple[str, ...]:
    """The first words of the first `count` texts, none twice: of the text and not of its tokens, so that models with
    different tokenizers complete the same."""
    heads = (text.strip()[:PROMPT_CHARACTERS] for text in texts)
    cut = (head.rpartition(" ")[0].strip() or head for head in heads)
    return tuple(dict.fromkeys(head for head in cut if head))[:count]


def generator_of(model: TextModel) -> TextGenerator:
    """Ready to write; the engine of an exported model is opened on first use and kept by the model."""
    budget = TOKEN_BUDGET[model.kind]
    return TextGenerator(model.encoder, model.run.begin, model.max_length, model.pad_id, model.end_ids, budget)


def complete(model: TextModel, prompts: Sequence[str], new_tokens: int = NEW_TOKENS) -> list[Completion]:
    """Complete each prompt greedily with up to `new_tokens` tokens, with the margins of each."""
    return generator_of(model).complete(prompts, Decoding(new_tokens), margins=True)


def decoded(model: TextModel, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens."""
    return generator_of(model).text_of(ids)


@dataclass(frozen=True)
class Written:
    """Seconds of each round, (rounds,), for `prompts` completed together with `new` tokens each, for one of them alone,
    and to the first token after one whole text. What follows the first token is `decode` and `following`."""

    batch: np.ndarray
    decode: np.ndarray
    single: np.ndarray
    following: np.ndarray
    first: np.ndarray
    prompts: int
    new: int

    @property
    def tokens(self) -> int:
        """Those that all prompts together get in one round."""
        return self.prompts * self.new

    def measurements(self) -> Measurements:
        """Under their names; tokens per second are those of all prompts together."""
        rest = self.tokens - self.prompts
        return {
            names.GENERATED_TOKENS_PER_S: quantile_interval(1 / self.batch).scaled(self.tokens),
            names.DECODE_TOKENS_PER_S: quantile_interval(1 / self.decode).scaled(rest),
            names.GENERATION_P50: quantile_interval(self.single * 1000),
            names.FIRST_TOKEN_P50: quantile_interval(self.first * 1000),
            names.NEXT_TOKEN_P50: quantile_interval(self.following * 1000 / (self.new - 1)),
        }


def measure_generation(
    models: Mapping[str, TextModel],
    prompts: Sequence[str],
    seconds: float,
    new_tokens: int = NEW_TOKENS,
    texts: Sequence[str] = (),
) -> dict[str, Written]:
    """Time greedy generation, all models in turn on the same prompts.

    Every model writes exactly `new_tokens` tokens a prompt: one that stops early would look fast. Reading is timed on
    whole `texts` (the prompts, where there are none), of which a model keeps as many of the last tokens as it takes.
    """
    generators = {label: generator_of(model) for label, model in models.items()}
    new = min(new_tokens, *(model.max_length - 1 for model in models.values()))
    prompts = prompts[:TIMED_PROMPTS]
    long = [text for text in dict.fromkeys(texts or prompts) if text.strip()]
    rows: dict[str, list[tuple[float, ...]]] = {label: [] for label in models}
    order = turns(models)
    end, rounds = time.perf_counter() + seconds, -WARM_UPS
    with tqdm(total=round(seconds), desc="measuring generation", bar_format="{l_bar}{bar}| {elapsed}") as bar:
        while rounds < FEWEST_ROUNDS or time.perf_counter() < end:
            for label in next(order):
                together = _timed(generators[label], prompts, new)
                alone = _timed(generators[label], [prompts[rounds % len(prompts)]], new)
                first, _ = _timed(generators[label], [long[rounds % len(long)]], 1)
                if rounds >= 0:
                    rows[label].append((sum(together), together[1], sum(alone), alone[1], first))
            rounds += 1
            bar.n = min(bar.total, max(0, round(seconds - (end - time.perf_counter()))))
            bar.refresh()
    found = {}
    for label, row in rows.items():
        batch, decode, single, following, first = np.array(row).T
        found[label] = Written(batch, decode, single, following, first, len(prompts), new)
    return found


def writing_gains(was: Written, now: Written) -> Measurements:
    """How many times as fast `now` is at writing, reading, and going on, together and alone: paired by round."""
    return {
        names.GENERATION_SPEEDUP: quantile_interval(was.batch / now.batch),
        names.PREFILL_SPEEDUP: quantile_interval(was.first / now.first),
        names.DECODE_SPEEDUP: quantile_interval(was.decode / now.decode),
        names.NEXT_TOKEN_SPEEDUP: quantile_interval(was.following / now.following),
    }


def _timed(generator: TextGenerator, prompts: Sequence[str], new: int) -> tuple[float, float]:
    """Seconds to the first tokens, and from there to the last; over several batches, their sums."""
    clock = Clock()
    generator.complete(prompts, Decoding(new), whole=True, clock=clock)
    return sum(clock.first), sum(clock.rest)
