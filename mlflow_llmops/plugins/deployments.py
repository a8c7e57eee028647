"""`mlflow.deployments`: `mlflow deployments create -t llmops -m models:/x@champion --name x`."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from mlflow.deployments.base import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlflow_llmops.errors import ConfigError, LLMOpsError

HELP = """\
Target llmops: servers of this machine, each a process that goes on when the command is over (mlflow-llmops serve).

-t llmops                  the whole target; it has no endpoints
-m models:/x@champion      a version by number or alias (an alias is followed when it moves), runs:/id/model, a folder
-C port=5001               the port; without it a free one, which `get` shows
-C host=0.0.0.0            the address to listen on; without it only this machine reaches the server
-C start_seconds=300       how long it may take until it answers
-C NAME=VALUE              any other option of `mlflow-llmops serve`

update starts the new version beside the old one, on another port, and ends the old one when the new one answers; where
it does not, the old one goes on. Without -m it starts the same model again, which also mends one that was killed.
Records and logs lie in ~/.cache/mlflow-llmops/deployments; LLMOPS_DEPLOYMENTS moves them.
"""


class DeploymentError(MlflowException, click.ClickException):  # type: ignore[misc]  # both call it `message`
    """What MLflow's callers catch, and its command line says in one line."""


class LocalDeployments(BaseDeploymentClient):
    """Servers of this machine by name."""

    def create_deployment(
        self, name: str, model_uri: str, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> dict[str, Any]:
        """Return when it answers. Raises DeploymentError for a name in use and a model that does not load."""
        from mlflow_llmops.serving import deployments

        with _told(flavor, endpoint):
            return deployments.create(name, model_uri, config or {})

    def update_deployment(
        self, name: str, model_uri: str | None = None, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> dict[str, Any]:
        """Return when the new server answers; until then, and where it does not, the old one goes on."""
        from mlflow_llmops.serving import deployments

        with _told(flavor, endpoint):
            return deployments.update(name, model_uri, config or {})

    def delete_deployment(self, name: str, config: Any = None, endpoint: Any = None) -> None:
        """End the server; nothing happens where there is none."""
        from mlflow_llmops.serving import deployments

        with _told(None, endpoint):
            deployments.delete(name)

    def list_deployments(self, endpoint: Any = None) -> list[dict[str, Any]]:
        """All of this machine."""
        from mlflow_llmops.serving import deployments

        with _told(None, endpoint):
            return deployments.every()

    def get_deployment(self, name: str, endpoint: Any = None) -> dict[str, Any]:
        """Its status, address, process and log."""
        from mlflow_llmops.serving import deployments

        with _told(None, endpoint):
            return deployments.get(name)

    def predict(self, deployment_name: Any = None, inputs: Any = None, endpoint: Any = None) -> Any:
        """Its answer to a table, a list, or a body as /invocations takes it."""
        from mlflow_llmops.serving import deployments

        with _told(None, endpoint):
            return deployments.predict(deployment_name, inputs)


def run_local(name: str, model_uri: str, flavor: Any = None, config: Mapping[str, str] | None = None) -> None:
    """Serve in the foreground until Ctrl-C; no other command knows of it."""
    from mlflow_llmops.serving import local_processes

    with _told(flavor):
        server_id = local_processes.new_id()
        environment = local_processes.environment_of(server_id)
        with subprocess.Popen(local_processes.command_of(model_uri, config or {}), env=environment) as running:
            try:
                code = running.wait()
            except KeyboardInterrupt:  # the terminal sent it to the server too
                code = running.wait()
        if code:
            raise ConfigError(f"name={name}: the server ended with exit code {code}; the lines above say why")


def target_help() -> str:
    """What `mlflow deployments help -t llmops` prints."""
    return HELP


@contextmanager
def _told(flavor: Any = None, endpoint: Any = None) -> Iterator[None]:
    try:
        if endpoint is not None:
            raise ConfigError(f"endpoint={endpoint}: the target llmops has deployments alone; leave it out")
        if flavor not in (None, "python_function"):
            raise ConfigError(f"flavor={flavor}: servers load the python_function flavor; leave it out")
        yield
    except LLMOpsError as error:
        raise DeploymentError(str(error), INVALID_PARAMETER_VALUE) from error
