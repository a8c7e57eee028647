"""What the run around a method offers it, besides model and data: an ear, a place that survives a kill, a memory.

A method on its own, in a script or a test, has none of them and works all the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_llmops.errors import ConfigError


def _ignore(metrics: Mapping[str, float], step: int) -> None:
    return None


def _overlook(settings: Mapping[str, object]) -> None:
    return None


def _forget(key: str) -> Path | None:
    return None


def _unknown(reference: str) -> Path:
    raise ConfigError(f"{reference} is known to a tracking store only; outside of a run give the folder of its files")


def _drop(key: str, folder: Path) -> None:
    return None


@dataclass(frozen=True)
class Session:
    """What a run offers. `fetch` raises ModelError for a reference that it cannot find, ConfigError without a run."""

    record: Callable[[Mapping[str, float], int], None] = _ignore
    """Hears of metrics at a training step."""
    note: Callable[[Mapping[str, object]], None] = _overlook
    """Hears of settings that the options left open."""
    recall: Callable[[str], Path | None] = _forget
    """The folder that was kept under a key, in this run or an earlier one."""
    keep: Callable[[str, Path], None] = _drop
    """Keep a folder under a key."""
    fetch: Callable[[str], Path] = _unknown
    """The plain folder of a model that a reference of MLflow names."""
    work: Path | None = None
    """A folder of this run alone, which a kill leaves."""
    checkpoint_seconds: float = 60.0
    """How much work a kill may cost at most."""


_current: ContextVar[Session] = ContextVar("session", default=Session())  # noqa: B039 - it is frozen


def current() -> Session:
    """The session of the run that a method is applied in; one that does nothing where there is none."""
    return _current.get()


def under(name: str, work: Path | None = None) -> Session:
    """The current session with metrics, settings and checkpoints under a name of their own, or the latter in `work`:
    for several trainings in one run, which differ in shape."""
    offered = current()
    return replace(
        offered,
        record=lambda metrics, step: offered.record({f"{name}/{key}": value for key, value in metrics.items()}, step),
        note=lambda settings: offered.note({f"{name}.{key}": value for key, value in settings.items()}),
        work=work or (None if offered.work is None else offered.work / name),
    )


@contextmanager
def session(offered: Session) -> Iterator[None]:
    """Offer a session to every method that is applied inside."""
    token = _current.set(offered)
    try:
        yield
    finally:
        _current.reset(token)
