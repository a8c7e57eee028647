"""Submit an entry point of a project, as MLflow's own backends run one."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import ExecutionException
from mlflow.projects import utils as projects

from mlflow_llmops.cluster.command import is_training, submit_command, words_of
from mlflow_llmops.cluster.config import read_cluster
from mlflow_llmops.cluster.job import SparkJob, sigterm_as_ctrl_c
from mlflow_llmops.errors import ConfigError

MLFLOWS = [value for name, value in vars(projects).items() if name.startswith("PROJECT_") and isinstance(value, str)]
"""Keys that MLflow adds to the backend's configuration."""


def submit(
    uri: str,
    entry_point: str,
    params: dict[str, Any] | None,
    version: str | None,
    backend_config: dict[str, Any],
    experiment_id: str,
) -> SparkJob:
    """Start the job, and wait for it where MLflow does not: `mlflow run` itself would end at once.

    Raises ConfigError for a configuration that cannot work, before there is a run, and ExecutionException for a job
    that failed.
    """
    cluster = read_cluster(backend_config, MLFLOWS)
    if backend_config.get(projects.PROJECT_ENV_MANAGER) not in (None, "local"):
        raise ConfigError("llmops-spark uses the Python that runs mlflow, on the workers too: leave out --env-manager")
    folder = projects.fetch_and_validate_project(uri, version, entry_point, params)
    project = projects.load_project(folder)
    (command,) = projects.get_entry_point_command(
        project, entry_point, params, backend_config.get(projects.PROJECT_STORAGE_DIR)
    )
    words = words_of(entry_point, command)
    run = projects.get_or_create_run(None, uri, experiment_id, folder, version, entry_point, params)
    environment = projects.get_run_env_vars(run.info.run_id, experiment_id)
    environment["MLFLOW_REGISTRY_URI"] = mlflow.get_registry_uri()
    name = f"{project.name or 'mlflow'} {entry_point} {run.info.run_id}"
    elsewhere = cluster.processes > 1 and is_training(words)
    job = SparkJob(run.info.run_id, submit_command(cluster, name, words), Path(folder), environment, elsewhere)
    if cluster.wait and not backend_config.get(projects.PROJECT_SYNCHRONOUS):
        try:
            with sigterm_as_ctrl_c():
                done = job.wait()
        except KeyboardInterrupt:
            job.cancel()
            raise
        if not done:
            raise ExecutionException(f"Run (ID '{run.info.run_id}') failed")
    return job
