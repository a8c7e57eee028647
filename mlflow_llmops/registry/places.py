"""What the registry says of its places beside what the record says, and what would make the two agree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.registry.record import Event, Record, events_in, replay
from mlflow_llmops.registry.versions import versions_of

STAGES = (names.STAGING, names.PRODUCTION)

Action = tuple[str, ...]
"""A call of the registry: tag, untag, stage, alias, unalias, or give, which is an event of the record."""


@dataclass(frozen=True)
class Difference:
    """Something that is not as the record has it. Without actions nothing that we can do mends it."""

    said: str
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Places:
    """A registered model at one moment."""

    record: Record
    versions: Mapping[str, ModelVersion]
    aliases: Mapping[str, str]

    def holder(self, stage: str) -> str | None:
        """Who holds the place by the record, or by its alias where there is no record of it. For a champion that was
        deleted it is who held the place before."""
        if not self.record.knows(stage):
            return self.aliases.get(names.ALIAS_OF_STAGE[stage])
        held = self.record.holder(stage)
        if held is None or held in self.versions:
            return held
        return self.before(stage) if stage == names.PRODUCTION else None

    def before(self, stage: str) -> str | None:
        """Who held the place last before its holder, of the versions that are left."""
        *line, last = self.record.lines.get(stage, ("",))
        champion = self.record.holder(names.PRODUCTION)  # is not moved back to Staging
        return next((v for v in reversed(line) if v in self.versions and v not in (last, champion)), None)

    def stage_of(self, version: str) -> str:
        return getattr(self.versions[version], "current_stage", None) or "None"


def look(name: str) -> Places:
    """Raises ConfigError where no such model is registered."""
    if not name.strip():
        raise ConfigError("name='': name the registered model")
    try:
        model = MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(f"name={name}: no such model is registered") from error
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return Places(replay(events_in(model.tags)), {str(v.version): v for v in versions_of(name)}, aliases)


def differences(places: Places, staged: bool) -> list[Difference]:
    """What is not as the record has it, in the order to mend it: a place is given before another version leaves it.

    Places without a record are left alone. `staged` says that the store has stages.
    """
    known = [stage for stage in (names.PRODUCTION, names.STAGING) if places.record.knows(stage)]
    return [
        *(found for stage in known for found in _taken(places, stage, staged)),
        *(found for stage in known for found in _left(places, stage, staged)),
        *_replaced(places, staged),
    ]


def _taken(places: Places, stage: str, staged: bool) -> Iterator[Difference]:
    """What the holder of the place lacks."""
    spell, alias = places.record.spell(stage), names.ALIAS_OF_STAGE[stage]
    if spell is None:
        return
    held = spell.since.version
    if held not in places.versions:
        if stage == names.PRODUCTION:
            yield _deleted(places, held)
        return
    tags = places.versions[held].tags
    wrong = {key: value for key, value in tags_of(spell.since).items() if tags.get(key) != value}
    if wrong:
        actions = tuple(("tag", held, key, value) for key, value in wrong.items())
        yield Difference(f"version {held} holds {stage}, and its tags do not say so ({', '.join(wrong)})", actions)
    if names.REPLACED_BY in tags:
        yield Difference(
            f"version {held} holds {stage}, and a tag says that version {tags[names.REPLACED_BY]} replaced it",
            (("untag", held, names.REPLACED_BY),),
        )
    if staged and places.stage_of(held) != stage:
        said = f"version {held} holds {stage} by the record and is in stage {places.stage_of(held)}"
        yield Difference(said, (("stage", held, stage),))
    if places.aliases.get(alias) != held:
        at = f"is at version {places.aliases[alias]}" if alias in places.aliases else "is missing"
        said = f"alias {alias} {at}; by the record version {held} holds {stage}"
        yield Difference(said, (("alias", alias, held),))


def _left(places: Places, stage: str, staged: bool) -> Iterator[Difference]:
    """What others still have of the place."""
    alias, held = names.ALIAS_OF_STAGE[stage], places.record.holder(stage)
    if held is None and alias in places.aliases:
        said = f"alias {alias} is at version {places.aliases[alias]}; by the record nobody holds {stage}"
        yield Difference(said, (("unalias", alias),))
    if held not in places.versions and held is not None:  # first its heir takes the place
        return
    late = {event.version: event for event in places.record.void if event.stage == stage and event.was not in STAGES}
    for other in sorted(places.versions, key=int):
        if staged and other != held and places.stage_of(other) == stage and other not in places.record.replaced:
            if any(places.record.holder(place) == other for place in STAGES):
                continue  # it moves to its own place
            said = f"version {other} is in stage {stage}, which no promotion gave it"
            if other in late:  # it took the place before the faster promotion was seen
                untagged = [key for key in tags_of(late[other]) if key in places.versions[other].tags]
                back: Action = ("stage", other, late[other].was)
                yield Difference(said, (*(("untag", other, key) for key in untagged), back))
                continue
            tagged: tuple[Action, ...] = (("tag", other, names.REPLACED_BY, held),) if held else ()
            yield Difference(said, (*tagged, ("stage", other, names.ARCHIVED)))


def _replaced(places: Places, staged: bool) -> Iterator[Difference]:
    """What those lack that held a place and were replaced."""
    deleted = {places.record.holder(stage) for stage in STAGES} - set(places.versions)
    for version, by in places.record.replaced.items():
        if version not in places.versions or by in deleted:
            continue
        said, actions = [], list[Action]()
        if places.versions[version].tags.get(names.REPLACED_BY) != by:
            said.append("no tag says so")
            actions.append(("tag", version, names.REPLACED_BY, by))
        if staged and places.stage_of(version) != names.ARCHIVED:
            said.append(f"it is in stage {places.stage_of(version)}")
            actions.append(("stage", version, names.ARCHIVED))
        if actions:
            yield Difference(
                f"version {version} was replaced by version {by}, and {' and '.join(said)}", tuple(actions)
            )


def _deleted(places: Places, held: str) -> Difference:
    heir = places.before(names.PRODUCTION)
    said = f"version {held}, which held {names.PRODUCTION}, was deleted"
    if heir is None:
        return Difference(f"{said}, and no version that held it before is left: promote another", ())
    return Difference(f"{said}; version {heir} held it before", (("give", names.PRODUCTION, heir, held, said),))


def tags_of(event: Event) -> dict[str, str]:
    """What a version says of the promotion, rollback or repair that gave it its place."""
    return {
        names.PROMOTED_TO: event.stage,
        names.PROMOTED_FROM: event.was,
        names.PROMOTED_AT: event.at,
        names.PROMOTED_BY: event.by,
        names.PROMOTED_WHY: event.why,
        names.PROMOTED_IN: event.run,
    }
