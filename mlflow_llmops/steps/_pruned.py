"""A pruning method in a run: within its bound where it has one, and beside its control where one is asked for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.measurement import Estimate, Measurements
from mlflow_llmops.methods.prune._pruning import Pruning
from mlflow_llmops.models.text_model import TextModel
from mlflow_llmops.steps._accuracy_control import Bounded
from mlflow_llmops.steps._fraction_search import search_fraction
from mlflow_llmops.steps._tasks import MEASURES


def apply_pruning(method: Pruning, model: TextModel, data: Splits, folder: Callable[[str], Path], seed: int) -> Bounded:
    """Apply `method` inside the active run. `folder` makes an empty folder of a name."""
    if method.max_quality_drop is None:
        made = Bounded(method.apply(model, data, folder("candidate"), seed), "", {})
    else:
        method, made = search_fraction(method, model, data, folder, seed)
    if method.control == "none":
        return made
    said, numbers = _from_scratch(method, model, made.model, data, seed)
    return replace(made, said="; ".join(filter(None, (made.said, said))), measured={**made.measured, **numbers})


def _from_scratch(
    method: Pruning, model: TextModel, made: TextModel, data: Splits, seed: int
) -> tuple[str, Measurements]:
    """Whether the weights were worth keeping, or only the shape, on the test split."""
    control = method.from_scratch(model, data, seed)
    found = MEASURES[model.task].quality_here({"pruned": made, "control": control}, data)["control"]
    change = found[names.QUALITY_CHANGE]
    if not isinstance(change, Estimate):
        raise TypeError("a change in quality is an estimate")
    if change.high < 0:
        worth = "the weights were worth keeping"
    elif change.low > 0:
        worth = "the weights were NOT worth keeping"
    else:
        worth = "it is not told apart: that the weights were worth keeping is not shown"
    said = (
        f"the same shape from random weights, trained for the same budget, has a quality {change.value:+.4f} "
        f"[{change.low:+.4f}, {change.high:+.4f}] from it: {worth}"
    )
    return said, {names.FROM_SCRATCH_PREFIX + name: value for name, value in found.items()}
