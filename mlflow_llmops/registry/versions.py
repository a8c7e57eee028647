"""Register a logged model as a version, and find versions again."""

from collections.abc import Mapping

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops.errors import ConfigError


def register(model_uri: str, name: str, tags: Mapping[str, str]) -> str:
    """A new version of `name`, with tags. Gives its number."""
    version: ModelVersion = mlflow.register_model(model_uri, name, tags=dict(tags))
    return str(version.version)


def get_version(name: str, version: str) -> ModelVersion:
    """Raises ConfigError, naming those there are, for a version that is not registered."""
    client = MlflowClient()
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        have = sorted((int(v.version) for v in client.search_model_versions(f"name = '{name}'")), reverse=True)
        there = f"it has: {', '.join(map(str, have[:10]))}" if have else "no such model is registered"
        raise ConfigError(f"version={version} of name={name} is not registered; {there}") from error


def check_name(name: str) -> None:
    """Raises ConfigError for a name that the registry would refuse once all the work is done."""
    if not name or any(letter in name for letter in "/:") or name != name.strip():
        raise ConfigError(f"register_as={name!r}: a registered model's name has no '/' or ':' and is not empty")
