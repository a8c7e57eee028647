"""What a scoring job can be told, checked before any work."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_llmops.errors import ConfigError

ON_ERROR = ("column", "null", "raise")


@dataclass(frozen=True)
class Options:
    """Of `score`. Raises ConfigError, naming the option, for a value that cannot work."""

    input_col: str = "text"
    """Several with commas between, for a model whose prompt names several; they are called as it calls them."""
    output_col: str = "prediction"
    """Gets the prediction; `<output_col>_error` and `<output_col>_meta` stand beside it."""
    id_col: str | None = None
    """A column that names each row; a checkpoint needs one."""
    on_error: str = "column"
    """A row that fails has its error in a column, or a null alone, or fails the job."""
    max_error_rate: float = 1.0
    """The job fails where a larger share of the rows did."""
    checkpoint: str | None = None
    """A folder that keeps finished rows, so that a job that died goes on."""
    resume: bool = False
    retry_failed: bool = False
    """When resumed, rows that failed are scored again."""
    checkpoint_rows: int = 5000
    """Rows of a task: so many are lost with it when it dies."""
    dedupe: bool | None = None
    """Score each distinct text once in the whole job, at the price of a shuffle; None: where an endpoint is asked."""
    concurrency: int | None = None
    """Calls of the model on their way at once, over the whole job, a row each."""
    requests_per_second: float | None = None
    """Calls of the model begun in a second, over the whole job, a row each."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Of the model's signature."""

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ConfigError(f"on_error={self.on_error}: write one of {', '.join(ON_ERROR)}")
        if not self.output_col:
            raise ConfigError("output_col: give the column of the predictions a name")
        if not (_is_number(self.max_error_rate) and 0 <= self.max_error_rate <= 1):
            raise ConfigError(f"max_error_rate={self.max_error_rate!r}: a share lies between 0 and 1")
        if self.concurrency is not None and not _is_count(self.concurrency):
            raise ConfigError(f"concurrency={self.concurrency!r}: allow at least one call at once, a whole number")
        rate = self.requests_per_second
        if rate is not None and not (_is_number(rate) and rate > 0):
            raise ConfigError(f"requests_per_second={rate!r}: it must be a number above 0")
        if not _is_count(self.checkpoint_rows):
            raise ConfigError(f"checkpoint_rows={self.checkpoint_rows!r}: it must be a whole number, at least 1")
        if not isinstance(self.params, Mapping):
            raise ConfigError(f'params={self.params!r}: give names and values, as {{"temperature": 0.7}}')
        if self.checkpoint and not self.id_col:
            raise ConfigError("checkpoint: finished rows are found again by their id; name its column with id_col")
        if self.retry_failed and not self.resume:
            raise ConfigError("retry_failed: there is nothing to try again in a new job; give resume=true too")
        if self.resume and not self.checkpoint:
            raise ConfigError("resume: a job goes on from its checkpoint; name its folder with checkpoint")

    @property
    def error_col(self) -> str:
        return f"{self.output_col}_error"

    @property
    def meta_col(self) -> str:
        return f"{self.output_col}_meta"

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that stand beside those of the input."""
        return tuple(name for name in (self.output_col, self.error_col, self.meta_col) if name != self.left_out)

    @property
    def left_out(self) -> str | None:
        return self.error_col if self.on_error == "null" else None

    @property
    def limited(self) -> bool:
        return self.concurrency is not None or self.requests_per_second is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def read_params(text: str | None) -> dict[str, Any]:
    """A JSON object as a terminal has it. Raises ConfigError for anything else."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f'params={text!r}: no JSON ({error}); write {{"temperature": 0.7}}') from error
    if not isinstance(found, dict):
        raise ConfigError(f'params={text!r}: write a JSON object, as {{"temperature": 0.7}}')
    return found
