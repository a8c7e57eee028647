"""Several processes that train one network, as `torchrun` and `accelerate launch` start them.

The first one is the run: it tracks, asks the teacher and the endpoint, measures and registers. The others train with
it, and get all that they need from it.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from mlflow_llmops.errors import ConfigError, MainStopped
from mlflow_llmops.methods._launch import is_main, processes

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""The first process may ask a teacher for days while the others wait."""


def share_of(batch_size: int) -> int:
    """The texts of a training step that each process takes. Raises ConfigError where they cannot be shared out."""
    if batch_size % processes():
        raise ConfigError(
            f"batch_size={batch_size} cannot be shared out evenly to {processes()} processes; give a multiple of them"
        )
    return batch_size // processes()


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives the first process, which alone calls it; the others wait for it.

    Raises MainStopped in the others, where the first one ends before it has made it.
    """
    if processes() == 1:
        return make()
    box: list[Any] = [make() if is_main() else None]
    try:
        distributed.broadcast_object_list(box, src=0, group=_group())
    except RuntimeError as error:
        raise _stopped(error) from error
    made: T = box[0]
    return made


def wait_for_all() -> None:
    """Until all processes are here."""
    if processes() > 1:
        distributed.barrier(group=_group())


@cache
def _group() -> distributed.ProcessGroup:
    """Of all processes, for what is no tensor of a network: it needs no GPU, and waits longer than one for training."""
    PartialState(cpu=not torch.cuda.is_available())
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


def _stopped(error: RuntimeError) -> BaseException:
    return error if is_main() else MainStopped("the first process has ended before the training; it says why")
