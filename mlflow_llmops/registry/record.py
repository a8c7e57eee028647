"""The record of who held which place: one tag of the registered model for each event, only ever added.

What stages, aliases and tags say follows from it, so that it can be put right after a death, a race or a hand.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError

LONGEST_WHY = 2000
"""Characters of a reason that are kept: PostgreSQL holds 5,000 of a whole tag."""

What = Literal["promote", "rollback", "mend", "found"]
"""`mend` puts back who held a place before a version that was deleted; `found` is who held it before any record."""


@dataclass(frozen=True)
class Event:
    """A place that was given to a version."""

    what: What
    stage: str
    version: str
    before: str | None
    """Who held it when this was decided. Where another holds it by then, the event is void: it was judged against the
    wrong one."""
    was: str
    """The stage that the version came from."""
    by: str
    why: str
    run: str
    at: str = ""
    """UTC, ISO 8601 with microseconds; set when it is written."""
    key: str = field(default="", compare=False)


@dataclass(frozen=True)
class Spell:
    """A version in a place, from an event until an event; `until=None` while it holds it."""

    since: Event
    until: Event | None = None


@dataclass(frozen=True)
class Record:
    """What follows from the events."""

    spells: tuple[Spell, ...]
    """By their beginning."""
    void: tuple[Event, ...]
    lines: Mapping[str, tuple[str, ...]]
    """For each place its holder, last, behind those that a rollback would go through."""
    replaced: Mapping[str, str]
    """Versions that hold no place any more, and who took the last one that they held."""

    def spell(self, stage: str) -> Spell | None:
        """The one that goes on."""
        return next((each for each in self.spells if each.since.stage == stage and each.until is None), None)

    def holder(self, stage: str) -> str | None:
        found = self.spell(stage)
        return found.since.version if found else None

    def knows(self, stage: str) -> bool:
        """Whether anybody ever held the place by the record."""
        return stage in self.lines


def append(name: str, event: Event) -> Event:
    """Write `event`, later than all that the registry knows of by now, whatever this machine's clock says."""
    last = max((each.at for each in read(name)), default="")
    now = datetime.now(UTC)
    if last:
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    at = now.isoformat(timespec="microseconds")
    key = f"{names.EVENT_PREFIX}{now:%Y%m%dT%H%M%S%fZ}.{uuid.uuid4().hex[:8]}"
    written = replace(event, at=at, key=key, why=event.why[:LONGEST_WHY])
    stored = {part: value for part, value in asdict(written).items() if part != "key"}
    MlflowClient().set_registered_model_tag(name, key, json.dumps(stored, ensure_ascii=False))
    return written


def read(name: str) -> list[Event]:
    """All events of a registered model, in their order."""
    return events_in(MlflowClient().get_registered_model(name).tags)


def events_in(tags: Mapping[str, str]) -> list[Event]:
    """Raises ConfigError for a tag that somebody wrote who is not us."""
    keys = sorted(key for key in tags if key.startswith(names.EVENT_PREFIX))
    try:
        return [Event(**json.loads(tags[key]), key=key) for key in keys]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"a tag of the registered model named {names.EVENT_PREFIX}... is no event of ours ({error}); delete it"
        ) from error


def replay(events: Iterable[Event]) -> Record:
    """Go through the events; one that was decided while another held the place than it says changes nothing."""
    spells: list[Spell] = []
    void: list[Event] = []
    lines: dict[str, tuple[str, ...]] = {}
    replaced: dict[str, str] = {}
    holding: dict[str, int] = {}  # from a place to the position of its spell
    for event in events:
        held = holding.get(event.stage)
        holder = spells[held].since.version if held is not None else None
        leaves = [
            place for place, at in holding.items() if place != event.stage and _version(spells, at) == event.version
        ]
        if event.before != holder or names.PRODUCTION in leaves:
            void.append(event)
            continue
        for place in [*leaves, *([event.stage] if held is not None else [])]:
            at = holding.pop(place)
            spells[at] = replace(spells[at], until=event)
        if holder and holder != event.version:
            replaced[holder] = event.version
        replaced.pop(event.version, None)
        holding[event.stage] = len(spells)
        spells.append(Spell(event))
        lines[event.stage] = _line(lines.get(event.stage, ()), event)
    return Record(tuple(spells), tuple(void), lines, replaced)


def _version(spells: list[Spell], at: int) -> str:
    return spells[at].since.version


def _line(line: tuple[str, ...], event: Event) -> tuple[str, ...]:
    """A rollback goes back along the line; anything else goes on."""
    if event.what in ("rollback", "mend") and event.version in line[:-1]:
        return line[: len(line) - 1 - line[-2::-1].index(event.version)]
    return (*line, event.version)
