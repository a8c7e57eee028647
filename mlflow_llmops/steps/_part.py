"""What the other processes of a job do: they train with the first one, and leave the run to it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods import table
from mlflow_llmops.methods._launch import processes
from mlflow_llmops.methods._ranks import from_main, share_of
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.methods.method import Method
from mlflow_llmops.methods.prune._pruning import Pruning
from mlflow_llmops.methods.training import Training
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class Part:
    """What the first process starts from: the others load nothing by themselves, so that all have the same."""

    model: TextModel
    data: Splits
    work: Path | None


def hand_out(model: TextModel, data: Splits, work: Path | None) -> None:
    """Called by the first process right before it applies the method."""
    from_main(lambda: Part(model, data, work))


def take_part(name: str, options: Mapping[str, Any], seed: int) -> None:
    """Called by the others. Raises MainStopped where the first one ends before it hands out anything."""
    method = table.build(name, options)
    part = from_main(_nothing)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory(prefix="llmops-") as folder, session(Session(work=part.work)):
        method.apply(part.model, part.data, Path(folder), seed)


def check_processes(name: str, method: Method) -> None:
    """Raises ConfigError where several processes were started and this method cannot use them."""
    if processes() > 1 and not isinstance(method, Training):
        raise ConfigError(f"{name} trains nothing, so {processes()} processes do not help it; start it as one process")
    if processes() > 1 and method.gives != "torch":
        raise ConfigError(f"{name} writes a graph after its training, which one process does; start it as one")
    if processes() > 1 and isinstance(method, Pruning):
        for option, off in (("max_quality_drop", None), ("control", "none")):
            if getattr(method, option) != off:
                raise ConfigError(f"{option}: models are measured between trainings, by one process; start it as one")
    if isinstance(method, Training):
        share_of(method.batch_size)


def _nothing() -> Part:
    raise TypeError("the first process hands out")
