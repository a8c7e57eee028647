"""For scripts of one's own, as in projects/: a function whose parameters say their texts becomes a command that has
its options, prints, and ends as a verb does."""

from mlflow_llmops.cli import script
from mlflow_llmops.steps._options import (
    KeyVariable,
    MaxQualityDrop,
    MeasureSeconds,
    MinSpeedup,
    Model,
    Outcome,
    RegisteredModel,
    Seed,
)

__all__ = [
    "KeyVariable",
    "MaxQualityDrop",
    "MeasureSeconds",
    "MinSpeedup",
    "Model",
    "Outcome",
    "RegisteredModel",
    "Seed",
    "script",
]
