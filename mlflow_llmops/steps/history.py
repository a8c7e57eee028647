"""Print who held which place, from when to when."""

from typing import Annotated

from rich.table import Table
from rich.text import Text

from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.places import Places, look
from mlflow_llmops.registry.record import Spell
from mlflow_llmops.steps._options import Outcome, RegisteredModel
from mlflow_llmops.tracking.run import usable_store

COLUMNS = ("place", "version", "from (UTC)", "until", "by", "how", "why", "run")


def history(
    name: RegisteredModel,
    to: Annotated[str | None, "the place: Staging or Production; auto: both"] = None,
) -> Outcome:
    """Read the record off the registered model's tags; it changes nothing and makes no run."""
    if to is not None:
        promotion.check_stage(to)
    with usable_store():
        places = look(name)
    spells = [spell for spell in places.record.spells if to in (None, spell.since.stage)]
    if not spells:
        return Outcome("", (Text(f"no promotion of {name}{f' to {to}' if to else ''} is on record"),), {"spells": ()})
    shown = Table(title=f"Places of {name}", title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for spell in spells:
        shown.add_row(*_row(spell, places))
    return Outcome("", (shown,), {"spells": tuple(spells)})


def _row(spell: Spell, places: Places) -> tuple[str, ...]:
    since, until = spell.since, spell.until
    ended = "now"
    if until is not None:
        went_on = until.stage != since.stage
        ended = f"{_minute(until.at)}, {f'went to {until.stage}' if went_on else f'version {until.version}'}"
    gone = "" if since.version in places.versions else " (deleted)"
    why = since.why if len(since.why) <= 60 else since.why[:57] + "..."
    return since.stage, since.version + gone, _minute(since.at), ended, since.by, since.what, why, since.run[:8]


def _minute(at: str) -> str:
    return at[:19].replace("T", " ")
