"""What `--backend-config` says of a cluster."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlflow_llmops.errors import ConfigError

CONFIG = "backend-config"
EXAMPLE = '{"master": "spark://host:7077", "conf": {"spark.executor.memory": "4g"}, "processes": 2}'


@dataclass(frozen=True)
class Cluster:
    """Where a job goes and how much of the cluster it takes. Raises ConfigError for a value that cannot work."""

    master: str
    """As `spark-submit --master` has it."""
    conf: Mapping[str, str] = field(default_factory=dict)
    """Spark's own properties."""
    processes: int = 1
    """How many processes finetune, distill and prune are shared out to; other entry points are one driver."""
    wait: bool = True
    """Whether `mlflow run` ends with the job; false leaves that to the caller of mlflow.projects.run."""

    def __post_init__(self) -> None:
        if not isinstance(self.master, str) or not self.master:
            raise ConfigError(f"{CONFIG}: master={self.master!r} is no address of a cluster; give {EXAMPLE}")
        if isinstance(self.processes, bool) or not isinstance(self.processes, int) or self.processes < 1:
            raise ConfigError(f"{CONFIG}: processes={self.processes!r} must be a whole number from 1 on")
        if not isinstance(self.wait, bool):
            raise ConfigError(f"{CONFIG}: wait={self.wait!r} must be true or false")
        if not isinstance(self.conf, Mapping):
            raise ConfigError(f"{CONFIG}: conf={self.conf!r} must name Spark's properties, as in {EXAMPLE}")
        for name, value in self.conf.items():
            if not name.startswith("spark.") or not isinstance(value, str | int | float):
                raise ConfigError(
                    f"{CONFIG}: conf has {name}={value!r}; it takes names that begin with spark., and plain values"
                )


def read_cluster(given: Any, of_mlflow: Collection[str] = ()) -> Cluster:
    """From the JSON of `--backend-config`, with the keys that MLflow adds to it; unknown ones are named."""
    if not isinstance(given, Mapping) or "master" not in given:
        raise ConfigError(f"{CONFIG} must name the cluster's master; give a JSON file or text like {EXAMPLE}")
    known = [each.name for each in fields(Cluster)]
    unknown = [name for name in given if name not in known and name not in of_mlflow]
    if unknown:
        raise ConfigError(f"{CONFIG}: {', '.join(unknown)} is unknown; the keys are {', '.join(known)}")
    return Cluster(**{name: given[name] for name in known if name in given})
