"""Move a version to Staging or Production: stage, alias and tags together. The only caller of the stage API.

The event in the record is the decision; all else is made to follow it, and can be again by anyone: that is how a death
on the way is mended. Of two that decide at once from the same holder the first event counts, and the other is refused.
"""

import getpass
import os
import time
import warnings
from collections.abc import Sequence

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, GateFailed, LLMOpsError
from mlflow_llmops.measure.gates import Reason
from mlflow_llmops.registry.places import STAGES, Action, Difference, Places, differences, look
from mlflow_llmops.registry.record import Event, What, append, read, replay
from mlflow_llmops.registry.versions import get_version

ROUNDS = 20
"""So often others may change the places of a model while we put them in order."""
FAILURES = 5
"""So many calls of the registry may fail meanwhile."""


def check_stage(stage: str) -> None:
    """Raises ConfigError for a place that there is none of."""
    if stage not in STAGES:
        raise ConfigError(f"to={stage} is no place a version can be promoted to; choose one of: {', '.join(STAGES)}")


def holder(name: str, stage: str) -> str | None:
    """The version that holds the place now; None where nobody does."""
    return look(name).holder(stage)


def promote(
    name: str, version: str, stage: str, reasons: Sequence[Reason], run_id: str, seen: Places | None = None
) -> str | None:
    """Give `stage` and its alias to `version` and archive the one that held it; gives that one's number.

    `seen` are the places that the decision was made on. Readers of the stage or the alias see the old version until
    they see the new one. Whatever a death on the way leaves half done, running it again or `settle` mends.

    Raises GateFailed, nothing changed, where another version took the place meanwhile.
    """
    check_stage(stage)
    get_version(name, version)
    places = seen or look(name)
    before = places.holder(stage)
    if stage == names.STAGING and places.holder(names.PRODUCTION) == version:
        raise ConfigError(f"version={version} of {name} holds Production; promote another version there first")
    if version == places.record.holder(stage):
        settle(name, run_id)
        return None
    why = "; ".join(f"{reason.check}: {reason.measured}" for reason in reasons)
    _give(name, places, "promote", stage, version, why, run_id)
    return before if before != version else None


def rollback(name: str, stage: str, why: str, run_id: str) -> tuple[str, str]:
    """Give the place back to the version that held it before; gives its number and that of the one that loses it.

    Raises ConfigError where there is none. Another rollback goes back one more.
    """
    check_stage(stage)
    places = look(name)
    held = places.record.holder(stage) or places.holder(stage)
    if held is None:
        raise ConfigError(f"to={stage}: nobody holds {stage} of {name}, so there is nothing to roll back")
    target = places.before(stage)
    if target is None:
        raise ConfigError(
            f"to={stage}: no version of {name} that held {stage} before version {held} is on record and left; "
            "promote one instead"
        )
    _give(name, places, "rollback", stage, target, f"rolled back from version {held}: {why}", run_id)
    return target, held


def faults(name: str) -> list[Difference]:
    """Where stages, aliases and tags are not as the record has them."""
    return differences(look(name), _has_stages())


def settle(name: str, run_id: str) -> list[Difference]:
    """Make stages, aliases and tags follow the record; gives what was mended.

    It looks again after it wrote: whoever writes last sees what all others recorded, so that promotions at once leave
    one order.
    """
    done: list[Difference] = []
    failed = 0
    for _ in range(ROUNDS):
        found = [fault for fault in faults(name) if fault.actions]
        if not found:
            return done
        try:
            for fault in found:
                for action in fault.actions:
                    _act(name, action, run_id)
        except MlflowException:
            # others write the same (MLflow then says BAD_REQUEST, for a key that is there), or deleted a version
            failed += 1
            if failed == FAILURES:
                raise
            time.sleep(0.1 * failed)
            continue
        done += found
    raise LLMOpsError(f"the places of {name} changed {ROUNDS} times while they were put in order; run doctor later")


def _give(name: str, seen: Places, what: What, stage: str, version: str, why: str, run_id: str) -> None:
    """Record that the place is the version's, and make it so. Raises GateFailed where another was faster."""
    before = seen.record.holder(stage)
    if not seen.record.knows(stage):
        before = seen.holder(stage)
        if before is not None:  # an alias that was set before there was a record
            was = seen.stage_of(before)
            append(name, Event("found", stage, before, None, was, _user(), "it had the alias", run_id))
    event = append(name, Event(what, stage, version, before, seen.stage_of(version), _user(), why, run_id))
    settle(name, run_id)
    record = replay(read(name))
    if any(each.key == event.key for each in record.void):
        raise GateFailed(
            f"{stage} of {name} was given to version {record.holder(stage)} meanwhile, and version {version} was "
            f"judged against {f'version {before}' if before else 'nobody'}; nothing changed, compare it again"
        )


def _act(name: str, action: Action, run_id: str) -> None:
    client = MlflowClient()
    match action:
        case ("tag", version, key, value):
            client.set_model_version_tag(name, version, key, value)
        case ("untag", version, key):
            client.delete_model_version_tag(name, version, key)
        case ("stage", version, stage):
            _set_stage(client, name, version, stage)
        case ("alias", alias, version):
            client.set_registered_model_alias(name, alias, version)
        case ("unalias", alias):
            client.delete_registered_model_alias(name, alias)
        case ("give", stage, version, deleted, why):
            was = get_version(name, version).current_stage or "None"
            append(name, Event("mend", stage, version, deleted, was, _user(), why, run_id))


def _user() -> str:
    """A container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _has_stages() -> bool:
    """Where the store has none any more, the aliases and the tags carry the places."""
    return hasattr(MlflowClient, "transition_model_version_stage")


def _set_stage(client: MlflowClient, name: str, version: str, stage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, and this is their one caller
        client.transition_model_version_stage(name, version, stage, archive_existing_versions=False)
