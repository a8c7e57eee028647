"""Several runtimes for the same network, measured on the machine at hand: the faster one is kept."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.batching.scorer import TextScorer
from mlflow_llmops.methods import _session
from mlflow_llmops.models.text_model import TextModel

ROUNDS = 9
TEXTS = 256
"""Train texts that the runtimes are timed on."""


def fastest(candidates: Mapping[str, Callable[[Path], TextModel]], texts: Sequence[str], folder: Path) -> TextModel:
    """Make each candidate in a folder of its own, time all in turn on `texts`, and leave the fastest in `folder`.

    What was measured goes to the run: each one's median seconds as a share of the fastest's.
    """
    made = {}
    for name, make in candidates.items():
        place = folder / name
        place.mkdir()
        made[name] = make(place)
    seconds = _timed(made, texts)
    best = min(seconds, key=lambda name: seconds[name])
    shares = {name: round(taken / seconds[best], 3) for name, taken in seconds.items()}
    _session.current().note(
        {"engine.fastest": best, **{f"engine.{name}_times_as_long": s for name, s in shares.items()}}
    )
    for path in (folder / best).iterdir():
        path.rename(folder / path.name)
    for name in candidates:
        shutil.rmtree(folder / name)
    return replace(made[best], folder=folder)


def _timed(models: Mapping[str, TextModel], texts: Sequence[str]) -> dict[str, float]:
    """The median seconds of each over rounds in which all take their turn."""
    scorers = {
        name: TextScorer(model.encoder, model.run, model.max_length, model.pad_id, TOKEN_BUDGET[model.kind])
        for name, model in models.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS + 1):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            scorer.logits(texts)
            if turn:  # the first round is a warm-up
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in taken.items()}
