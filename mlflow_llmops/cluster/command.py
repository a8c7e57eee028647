"""From a project's command to that of spark-submit."""

import shlex
from pathlib import Path

import pyspark

from mlflow_llmops.cluster import driver
from mlflow_llmops.cluster.config import Cluster
from mlflow_llmops.errors import ConfigError

PYTHONS = ("python", "python3")
SHELL = {"&&", "||", "|", ";", ">", "<", "&"}
OURS = ["-m", "mlflow_llmops"]
TRAINING = {"finetune", "distill", "prune"}
ONCE = {
    "spark.stage.maxConsecutiveAttempts": "1",  # a training that failed has ended its run: it is not begun again
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "3s",  # executors register one by one
}


def words_of(entry_point: str, command: str) -> list[str]:
    """The arguments of `python` in the command of an entry point. Raises ConfigError for any other command."""
    python, *words = shlex.split(command)
    if python not in PYTHONS or not words or SHELL & set(words) or (words[0].startswith("-") and words[0] != "-m"):
        raise ConfigError(
            f"entry point {entry_point} runs `{command[:200]}`; llmops-spark submits `python file.py ...` and "
            "`python -m module ...` alone"
        )
    return words


def is_training(words: list[str]) -> bool:
    """Whether several processes can share the work out."""
    return words[:2] == OURS and len(words) > 2 and words[2] in TRAINING


def submit_command(cluster: Cluster, name: str, words: list[str]) -> list[str]:
    """What starts the job, from the project's folder; $SPARK_HOME's spark-submit where it is set, else pyspark's."""
    processes = cluster.processes if is_training(words) else 1
    conf = {**(ONCE if processes > 1 else {}), **cluster.conf}
    options = [word for key, value in conf.items() for word in ("--conf", f"{key}={_as_text(value)}")]
    start = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), "--master", cluster.master, "--name", name]
    return [*start, *options, driver.__file__, str(processes), *words]


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
