"""What a user may set of a loaded version's engine. None of it changes an answer by more than rounding, but where a
score hangs on its batch-mates: there nothing is remembered or gathered unless asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mlflow_llmops.errors import ConfigError


@dataclass(frozen=True)
class EngineOptions:
    """In MLflow they are a model's `model_config`; the variable MLFLOW_PYFUNC_INFERENCE_CONFIG (JSON) sets them from
    outside, in a server and in `spark_udf(extra_env=...)`: a cluster drops what is passed as `model_config`.

    Raises ConfigError, naming the option, for a value that cannot work.
    """

    threads: int = 0
    """Cores for one batch; 0 takes those that the process may use (`engines.default_threads`)."""
    token_budget: int = 0
    """Padded tokens in a batch; 0 takes what was found for the artifact, or its kind's (`plan.TOKEN_BUDGET`)."""
    memo_rows: int = 10_000
    """Answers kept for texts that come again; 0 keeps none."""
    gather: bool = True
    """Calls from several threads that come while the network is busy share its next batch."""
    queue: int = 128
    """Calls that may wait for the network at once; one more is refused."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value, least = getattr(self, option.name), 1 if option.name == "queue" else 0
            if isinstance(option.default, bool):
                if not isinstance(value, bool):
                    raise ConfigError(f"{option.name}={value!r}: must be true or false")
            elif isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{option.name}={value!r}: must be a whole number, {least} or above")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, defaults: "EngineOptions | None" = None) -> "EngineOptions":
        """Those in a `model_config`, which may hold other things too; `defaults` for those that are not in it."""
        known = {option.name for option in fields(cls)}
        return replace(defaults or cls(), **{name: value for name, value in (given or {}).items() if name in known})

    def stored(self) -> dict[str, Any]:
        """What a logged model has to hold: MLflow lets nobody set an option that is not there."""
        return asdict(self)
