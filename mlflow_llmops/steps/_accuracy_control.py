"""A bound on what quantization may cost: the layers that it hurts most go back to full precision until it holds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.methods._layers import weighted_layers
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.methods.quantize._sensitivity import sensitivities
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps._tasks import MEASURES

COST_SECONDS = 4.0
"""For measuring what the layers that stayed behind cost in speed."""


@dataclass(frozen=True)
class Trial:
    """So many of the most sensitive layers left as they were, and what that lost on dev."""

    layers: int
    drop: float
    seconds: float
    model: TextModel


def fewest(
    attempt: Callable[[int], Trial], layers: int, max_drop: float, seconds: float, clock: Callable[[], float]
) -> tuple[Trial, list[Trial]]:
    """The trial that holds `max_drop` with the fewest layers left behind, and all that were made: none first, then
    1, 2, 4 ... until it holds, then between. No trial starts after `seconds`.

    Where none holds, the one that lost least is the best.
    """
    end = clock() + seconds
    trials = [attempt(0)]
    fails, holds = 0, None if trials[0].drop > max_drop else 0
    count = 1
    while holds != 0 and (holds is None or holds - fails > 1) and count <= layers and clock() < end:
        trials.append(attempt(count))
        if trials[-1].drop <= max_drop:
            holds = count
        else:
            fails = count
        if holds is None and count == layers:
            break
        count = min(2 * count, layers) if holds is None else (fails + holds) // 2
    held = [trial for trial in trials if trial.drop <= max_drop]
    best = min(held, key=lambda trial: trial.layers) if held else min(trials, key=lambda trial: trial.drop)
    return best, trials


@dataclass(frozen=True)
class Bounded:
    """What came of the search: the model, one sentence for the verdict, and numbers for the run."""

    model: TextModel
    said: str
    measured: Measurements
    missed: str = ""
    """The bound that the model does not hold, in words."""


def apply_within_bound(
    method: Quantization, model: TextModel, data: Splits, folder: Callable[[str], Path], seed: int
) -> Bounded:
    """Apply `method` with as few layers left behind as its bound allows. Each trial is logged to the active run.

    `folder` makes an empty folder of a name.
    """
    if method.max_quality_drop is None:
        raise TypeError("there is no bound")
    task = MEASURES[model.task]
    reference = task.held(model, data.dev)
    layers = [layer for layer in weighted_layers(model.network) if layer not in method.kept(model.network)]
    order: list[str] = []

    def attempt(count: int) -> Trial:
        start = time.perf_counter()
        if count and not order:
            order.extend(layer for layer in sensitivities(model, data, seed, method.rounding) if layer in layers)
        made = method.keeping(tuple(order[:count])).apply(model, data, folder(f"keeping-{count}"), seed)
        return Trial(count, reference - task.held(made, data.dev), time.perf_counter() - start, made)

    best, trials = fewest(attempt, len(layers), method.max_quality_drop, method.control_seconds, time.monotonic)
    cost = _cost(trials[0].model, best.model, data)
    mlflow.log_dict(_as_json(trials, order[: best.layers], reference, method.max_quality_drop), names.CONTROL)
    measured: Measurements = {names.LAYERS_LEFT: float(best.layers), names.DROP_ON_DEV: best.drop}
    if cost is not None:
        measured[names.SPEED_OF_ALL] = cost
    return Bounded(
        best.model,
        _said(best, len(layers), method.max_quality_drop, cost),
        measured,
        missed_bound(best.drop, method.max_quality_drop),
    )


def missed_bound(drop: float, bound: float) -> str:
    """In words; empty where it is held."""
    return "" if drop <= bound else f"it lost {drop:.4g} on dev, and max_quality_drop is {bound:g}"


def _cost(everything: TextModel, best: TextModel, data: Splits) -> Estimate | None:
    """How fast the result is beside the one with every layer quantized; None where it is that one."""
    if best is everything:
        return None
    _, measured = MEASURES[best.task].speed({"all": everything, "best": best}, data, COST_SECONDS)
    found = measured["best"][names.SPEEDUP]
    return found if isinstance(found, Estimate) else None


def _said(best: Trial, layers: int, bound: float, cost: Estimate | None) -> str:
    place = "held" if best.drop <= bound else "NOT held"
    said = f"the bound of {bound:g} on dev is {place} (quality {0.0 - best.drop:+.4f} there)"
    if cost is None:
        return f"{said} with every layer quantized" if best.layers == 0 else said
    return (
        f"{said}: {best.layers} of {layers} layers stayed at full precision, which makes it {cost.value:.2f} "
        f"[{cost.low:.2f}, {cost.high:.2f}] times as fast as with none"
    )


def _as_json(trials: list[Trial], left: list[str], reference: float, bound: float) -> dict[str, Any]:
    shown = [{name: value for name, value in vars(trial).items() if name != "model"} for trial in trials]
    return {"quality_on_dev_before": reference, "bound": bound, "layers_left": left, "trials": shown}
