"""`mlflow.project_backend`: `mlflow run . -b llmops-spark --backend-config cluster.json -e score`."""

from typing import Any

from mlflow.exceptions import ExecutionException
from mlflow.projects.backend.abstract_backend import AbstractBackend

from mlflow_llmops.errors import LLMOpsError


class SparkBackend(AbstractBackend):
    """Submits an entry point to a Spark cluster with spark-submit, training ones over TorchDistributor."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, Any] | None,
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> Any:
        from mlflow_llmops.cluster.submit import submit

        try:
            return submit(project_uri, entry_point, params, version, backend_config, experiment_id)
        except LLMOpsError as error:  # the kind that `mlflow run` says in one line
            raise ExecutionException(str(error)) from error
