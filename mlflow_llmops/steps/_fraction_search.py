"""A bound on what pruning may cost: the deepest cut that holds it is searched for, and every trial is in the run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.methods import _session, table
from mlflow_llmops.methods.prune._pruning import Pruning
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps._accuracy_control import Bounded, missed_bound
from mlflow_llmops.steps._tasks import MEASURES
from mlflow_llmops.tracking.fraction_curve import Point, curve_png

SPEED_SECONDS = 2.0
"""For the speed of one trial beside that of nothing cut, in the same runtime."""


@dataclass(frozen=True)
class Cut:
    """One trial: what it lost on dev, and how fast it is beside nothing cut. Its model is kept while it is the best."""

    fraction: float
    drop: float
    seconds: float
    speedup: Estimate | None
    model: TextModel | None


def deepest(
    attempt: Callable[[float], Cut],
    amounts: Sequence[float],
    start: float,
    max_drop: float,
    seconds: float,
    clock: Callable[[], float],
) -> tuple[Cut, list[Cut]]:
    """The trial that holds `max_drop` with the largest of `amounts`, which ascend, and all that were made: that nearest
    to `start` first, then by bisection. No trial starts after `seconds`.

    Where none holds, the one that lost least is the best. Only the best has its model still.
    """
    end = clock() + seconds
    holds, fails = -1, len(amounts)
    position = min(range(len(amounts)), key=lambda i: abs(amounts[i] - start))
    best: Cut | None = None
    trials: list[Cut] = []
    while not trials or (fails - holds > 1 and clock() < end):
        trial = attempt(amounts[position])
        held = trial.drop <= max_drop
        better = best is None or (
            trial.fraction > best.fraction if held and best.drop <= max_drop else trial.drop < best.drop
        )
        best = trial if better else best
        trials.append(replace(trial, model=None))
        if held:
            holds = position
        else:
            fails = position
        position = (holds + fails) // 2
    if best is None:
        raise TypeError("there was no trial")
    return best, trials


def search_fraction(
    method: Pruning, model: TextModel, data: Splits, folder: Callable[[str], Path], seed: int
) -> tuple[Pruning, Bounded]:
    """The method with the deepest cut that its bound allows, and what came of it.

    Each trial is logged to the active run, with the curve of them all. `folder` makes an empty folder of a name.
    """
    if method.max_quality_drop is None:
        raise TypeError("there is no bound")
    task, bound = MEASURES[model.task], method.max_quality_drop
    reference = task.held(model, data.dev)
    runtimes = {model.kind: model}

    def uncut(kind: str) -> TextModel:
        if kind not in runtimes:
            runtimes[kind] = table.build(f"export.{kind}", {}).apply(model, data, folder(f"uncut-{kind}"), seed)
        return runtimes[kind]

    def attempt(fraction: float) -> Cut:
        start = time.perf_counter()
        with _session.session(_session.under(f"cut_{fraction:.4g}")):
            made = method.with_fraction(fraction).apply(model, data, folder(f"cut-{fraction:.4g}"), seed)
        drop = reference - task.held(made, data.dev)
        _, measured = task.speed({"uncut": uncut(made.kind), "cut": made}, data, SPEED_SECONDS)
        speedup = measured["cut"][names.SPEEDUP]
        return Cut(
            fraction, drop, time.perf_counter() - start, speedup if isinstance(speedup, Estimate) else None, made
        )

    best, trials = deepest(
        attempt, method.amounts(model), method.fraction, bound, method.control_seconds, time.monotonic
    )
    if best.model is None:
        raise TypeError("the best trial has its model")
    mlflow.log_dict(_as_json(trials, reference, bound), names.FRACTION_SEARCH)
    points = [Point(trial.fraction, reference - trial.drop, trial.speedup) for trial in trials]
    mlflow.log_figure(curve_png(points, f"{task.HELD} on dev", reference, bound), names.FRACTION_CURVE_PNG)
    measured: Measurements = {names.FRACTION: best.fraction, names.DROP_ON_DEV: best.drop}
    found = Bounded(best.model, _said(best, trials, bound), measured, missed_bound(best.drop, bound))
    return method.with_fraction(best.fraction), found


def _said(best: Cut, trials: Sequence[Cut], bound: float) -> str:
    held = best.drop <= bound
    said = f"the bound of {bound:g} on dev is {'held' if held else 'NOT held'} (quality {0.0 - best.drop:+.4f} there)"
    if len(trials) == 1:
        return f"{said} by fraction {best.fraction:.3g}, the only cut that was tried"
    which = "the deepest that holds it" if held else "the one that lost least"
    return f"{said}: fraction {best.fraction:.3g} is {which} of {len(trials)} cuts that were tried"


def _as_json(trials: Sequence[Cut], reference: float, bound: float) -> dict[str, Any]:
    shown = [
        {
            "fraction": trial.fraction,
            "drop": trial.drop,
            "seconds": trial.seconds,
            "speedup": vars(trial.speedup) if trial.speedup else None,
        }
        for trial in trials
    ]
    return {"quality_on_dev_before": reference, "bound": bound, "trials": shown}
