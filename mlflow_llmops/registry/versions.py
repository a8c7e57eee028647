"""Register a logged model as a version, and find versions again."""

import re
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


def describe(name: str, version: str, text: str) -> None:
    """Say in short what a version is, where the UI shows it first."""
    MlflowClient().update_model_version(name, version, text[:5000])


def get_version(name: str, version: str) -> ModelVersion:
    """Raises ConfigError for what is no version's number and, naming those there are, for one not registered."""
    if not re.fullmatch("[1-9][0-9]*", version):  # the store takes '02' too, and nothing we wrote is under that name
        plain = version.strip().lstrip("0")
        number = plain if re.fullmatch("[1-9][0-9]*", plain) else "a number such as 2"
        raise ConfigError(f"version={version} is no version number; write {number}")
    try:
        return MlflowClient().get_model_version(name, version)
    except MlflowException as error:
        have = sorted((int(v.version) for v in versions_of(name)), reverse=True)
        there = f"it has: {', '.join(map(str, have[:10]))}" if have else "no such model is registered"
        raise ConfigError(f"version={version} of name={name} is not registered; {there}") from error


def versions_of(name: str) -> list[ModelVersion]:
    """All versions of a registered model, none where there is no such model."""
    # MLflow's filters know no escape: a name is put into the quotes that it does not hold.
    quote = next((quote for quote in "'\"" if quote not in name), None)
    found = MlflowClient().search_model_versions(f"name = {quote}{name}{quote}" if quote else None)
    return [version for version in found if version.name == name]


def check_name(name: str) -> None:
    """Raises ConfigError for a name that the registry would refuse once all the work is done."""
    if not name or any(letter in name for letter in "/:") or name != name.strip():
        raise ConfigError(f"register_as={name!r}: a registered model's name has no '/' or ':' and is not empty")
