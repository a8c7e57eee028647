"""How many padded tokens a batch of an exported classifier should have, found once, where the artifact is made."""

import time
from collections.abc import Sequence
from dataclasses import replace

from mlflow_llmops import names
from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.engines import open_engine
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.scorer import scorer_of
from mlflow_llmops.models.text_model import TextModel

BUDGETS = (512, 1024, 2048)
SAMPLE_TOKENS = 8192
"""Enough for four batches of the largest budget."""
ROUNDS = 3
MARGIN = 1.03
"""A budget has to be ahead of its kind's by so much in every round; less is noise."""


def calibrate_budget(model: TextModel, texts: Sequence[str]) -> None:
    """Write the fastest budget into the artifact of `model`, where one is faster than what suits its kind in general.

    All are timed in turn, on one core as a Spark task has it, in seconds of the CPU: those of the clock pick another
    budget each time while anything else runs.
    """
    if model.folder is None or model.task != "text-classification":
        return
    usual = TOKEN_BUDGET[model.kind]
    scorer = replace(scorer_of(model), network=open_engine(model.kind, model.folder, threads=1))
    scorers = {budget: replace(scorer, token_budget=budget) for budget in BUDGETS}
    sample = _sample(scorer, texts)
    for each in scorers.values():
        _seconds(each, sample)
    rounds = [{budget: _seconds(each, sample) for budget, each in scorers.items()} for _ in range(ROUNDS)]
    gains = {budget: min(seconds[usual] / seconds[budget] for seconds in rounds) for budget in BUDGETS}
    best = max(gains, key=lambda budget: gains[budget])
    if gains[best] >= MARGIN:
        found = hardware_tags()[names.HARDWARE]
        replace(model.artifact, token_budget=best, token_budget_hardware=found).write(model.folder)


def _sample(scorer: TextScorer, texts: Sequence[str]) -> list[str]:
    """As many of the first texts as have so many tokens."""
    taken, tokens = [], 0
    for text in texts:
        if tokens >= SAMPLE_TOKENS:
            break
        taken.append(text)
        tokens += len(scorer.encode([text])[0])
    return taken


def _seconds(scorer: TextScorer, texts: Sequence[str]) -> float:
    start = time.process_time()
    scorer.logits(texts)
    return time.process_time() - start
