"""From which length on a method pays, measured and logged beside the run's other measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow

from mlflow_llmops import names
from mlflow_llmops.data.texts import Splits
from mlflow_llmops.measure.break_even import LENGTHS, BreakEven, measure_break_even
from mlflow_llmops.measure.measurement import Measurements
from mlflow_llmops.methods.method import Method
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class LongInputs:
    """Numbers for the run, and a sentence for the verdict."""

    measured: Measurements
    said: str


def measure_long_inputs(
    method: Method, model: TextModel, data: Splits, seconds: float, folder: Callable[[str], Path]
) -> LongInputs:
    """Time the method's rivals at every length, and log the table to the active run."""
    found = measure_break_even(
        method.rivals(model, folder("rivals"), max(LENGTHS)), data.test.texts, model.max_length, seconds
    )
    mlflow.log_text(_table(found), names.LENGTHS_TABLE)
    return LongInputs(found.measurements(), found.said())


def _table(found: BreakEven) -> str:
    lines = ["# Speed by length: one text at a time", "", "| tokens | times as fast | rounds |", "|---:|---:|---:|"]
    for tokens, ratio in found.ratios.items():
        lines.append(f"| {tokens} | {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] | {found.rounds[tokens]} |")
    lines += ["", *(f"- left out: {tokens} tokens: {why}" for tokens, why in found.left_out.items())]
    lines += [f"- {found.said()}"]
    lines += [
        "- With the method against without it, in the same runtime, paired. Both networks have their position "
        f"embeddings repeated beyond the {found.takes} tokens that the model takes: such answers mean nothing, their "
        "time does."
    ]
    return "\n".join([*lines, ""])
