"""Rule 5 for causal models: what a saved one writes, and how likely it holds a text, must be as it was in memory."""

from collections.abc import Sequence

import numpy as np

from mlflow_llmops.errors import ArtifactMismatch
from mlflow_llmops.measure.generation import Completion, decoded
from mlflow_llmops.measure.likelihood import Likelihoods
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.tracking.reload import Answers

TIE = 1e-3
"""Two logits that are closer may change places by rounding, and everything written after them differs."""
LOG_TOLERANCE = 1e-3
"""Largest difference of a token's log-likelihood."""


def check_completions(model: TextModel, expected: Sequence[Completion], reloaded: Answers) -> int:
    """How many completions differ after a tie. `expected` is what `model` writes in memory.

    Raises ArtifactMismatch where one differs and no token before the difference was a tie.
    """
    ties, differ = 0, []
    for mine, theirs in zip(expected, reloaded.completions, strict=True):
        if mine.text != theirs:
            reached = _shared(model, mine, theirs)
            tie = min(mine.margins[: reached + 1], default=TIE) < TIE
            ties += tie
            differ += [] if tie else [(mine.text, theirs)]
    if differ:
        mine_text, their_text = (text[:60] for text in differ[0])
        raise ArtifactMismatch(
            f"the saved model, loaded in a fresh process, completes {len(differ)} of {len(expected)} prompts "
            f"otherwise: {their_text!r}, not {mine_text!r}; not registered"
        )
    return ties


def check_likelihoods(expected: Likelihoods, reloaded: Likelihoods) -> float:
    """The largest difference of a token's log-likelihood. Raises ArtifactMismatch where it is too large."""
    if expected.tokenizer != reloaded.tokenizer or [*expected.counts] != [*reloaded.counts]:
        raise ArtifactMismatch("the saved model, loaded again, cuts texts into other tokens; not registered")
    pairs = zip(expected.log, reloaded.log, strict=True)
    apart = max((float(np.abs(mine - theirs).max(initial=0.0)) for mine, theirs in pairs), default=0.0)
    if not apart <= LOG_TOLERANCE:  # a NaN is no match either
        raise ArtifactMismatch(
            f"the saved model, loaded again, gives other outputs: log-likelihoods of tokens differ by up to "
            f"{apart:.3g} ({LOG_TOLERANCE} is allowed); not registered"
        )
    return apart


def _shared(model: TextModel, mine: Completion, theirs: str) -> int:
    """How many tokens of `mine` can stand at the beginning of `theirs`: the first that differs is no later one."""
    shared = 0
    for count in range(1, len(mine.ids) + 1):
        text = decoded(model, mine.ids[:count])
        # half a character, and spaces at the ends, are not in what MLflow gives
        if theirs.startswith(text.rstrip("\ufffd").strip()):
            shared = count
    return shared
