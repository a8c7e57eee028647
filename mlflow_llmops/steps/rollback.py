"""Give a place back to the version that held it before."""

from typing import Annotated

from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.registry import promotion
from mlflow_llmops.steps._options import Outcome, RegisteredModel
from mlflow_llmops.tracking.run import start_run


def rollback(
    name: RegisteredModel,
    to: Annotated[str, "the place that is given back: Staging or Production"] = names.PRODUCTION,
    why: Annotated[str, "the reason, for the record"] = "no reason given",
) -> Outcome:
    """Undo the last promotion to a place: no gate is asked, since the version before has passed it."""
    params = {"rollback.name": name, "rollback.to": to, "rollback.why": why}
    with start_run(f"rollback of {to}", {names.VERB: "rollback"}, params) as run:
        version, lost = promotion.rollback(name, to, why, run.info.run_id)
    said = f"version {version} of {name} is in {to} again, alias {names.ALIAS_OF_STAGE[to]}; version {lost} is archived"
    return Outcome(run.info.run_id, (Text(said),), {"version": version, "lost": lost})
