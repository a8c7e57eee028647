"""Move a version to Staging or Production: stage, alias and audit tags together. The only caller of the stage API."""

import getpass
import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.measure.gates import Reason
from mlflow_llmops.registry.versions import get_version, versions_of

STAGES = (names.STAGING, names.PRODUCTION)


def check_stage(stage: str) -> None:
    """Raises ConfigError for a place that there is none of."""
    if stage not in STAGES:
        raise ConfigError(f"to={stage} is no place a version can be promoted to; choose one of: {', '.join(STAGES)}")


def holder(name: str, stage: str) -> str | None:
    """The version that holds the place now, by its alias; None where nobody does."""
    try:
        return str(MlflowClient().get_model_version_by_alias(name, names.ALIAS_OF_STAGE[stage]).version)
    except MlflowException:  # MLflow tells a missing alias from a missing model by its message only
        return None


def promote(name: str, version: str, stage: str, reasons: Sequence[Reason], run_id: str) -> str | None:
    """Give `stage` and its alias to `version` and archive the one that held it; gives that one's number.

    The alias moves when the version is ready: until then readers of `models:/name@champion` see the old one. Whatever
    a death on the way leaves half done, running it again mends.
    """
    check_stage(stage)
    client = MlflowClient()
    before = holder(name, stage)
    was = get_version(name, version).current_stage or "None"
    if stage == names.STAGING and holder(name, names.PRODUCTION) == version:
        raise ConfigError(f"version={version} of {name} holds Production; promote another version there first")
    tags = {
        names.PROMOTED_TO: stage,
        names.PROMOTED_FROM: was,
        names.PROMOTED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
        names.PROMOTED_BY: _user(),
        names.PROMOTED_WHY: "; ".join(f"{reason.check}: {reason.measured}" for reason in reasons)[:5000],
        names.PROMOTED_IN: run_id,
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    _set_stage(client, name, version, stage)
    for place in STAGES:
        if place != stage and holder(name, place) == version:
            client.delete_registered_model_alias(name, names.ALIAS_OF_STAGE[place])
    client.set_registered_model_alias(name, names.ALIAS_OF_STAGE[stage], version)
    others = {str(other.version) for other in versions_of(name) if other.current_stage == stage}
    if before:  # where the store has no stages
        others.add(before)
    for other in sorted(others - {version}, key=int):
        client.set_model_version_tag(name, other, names.REPLACED_BY, version)
        _set_stage(client, name, other, names.ARCHIVED)
    return before if before != version else None


def _user() -> str:
    """A container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _set_stage(client: MlflowClient, name: str, version: str, stage: str) -> None:
    """Set the stage where the store still has stages; the alias and the tags carry the place where it does not."""
    transition = getattr(client, "transition_model_version_stage", None)
    if transition is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, and this is their one caller
        transition(name, version, stage, archive_existing_versions=False)
