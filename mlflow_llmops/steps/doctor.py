"""Find what differs between stages, aliases, tags and the record of promotions, and mend it."""

from typing import Annotated

import mlflow
from rich.table import Table
from rich.text import Text

from mlflow_llmops import names
from mlflow_llmops.errors import NotMended
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.places import Difference
from mlflow_llmops.steps._options import Outcome, RegisteredModel
from mlflow_llmops.tracking.run import start_run


def doctor(
    name: RegisteredModel,
    mend: Annotated[bool, "put stages, aliases and tags back to what the record of promotions says"] = False,
) -> Outcome:
    """Exit with 0 where all is well or was mended, and with 4 where something is left."""
    with start_run("doctor", {names.VERB: "doctor"}, {"doctor.name": name, "doctor.mend": mend}) as run:
        found = promotion.faults(name)
        mended = promotion.settle(name, run.info.run_id) if mend else []
        left = promotion.faults(name) if mend else found
        said = [each.said for each in (*mended, *left)]
        mlflow.log_dict({"mended": [each.said for each in mended], "left": [each.said for each in left]}, names.DOCTOR)
        mlflow.set_tag(names.VERDICT, "sick" if left else "mended" if mended else "well")
        if left:
            hint = "" if mend else "; --mend mends them" if all(each.actions for each in left) else "; see the table"
            error = NotMended(f"{len(left)} difference(s) in {name} are not mended: {left[0].said}{hint}")
            error.shown = (_table(mended, left),)
            raise error
    if not said:
        return Outcome(run.info.run_id, (Text(f"{name} is well: stages, aliases and tags are as recorded"),))
    return Outcome(run.info.run_id, (_table(mended, left),), {"mended": mended})


def _table(mended: list[Difference], left: list[Difference]) -> Table:
    shown = Table(title="Found", title_justify="left")
    shown.add_column("difference", overflow="fold")
    shown.add_column("outcome")
    for each in mended:
        shown.add_row(each.said, "mended")
    for each in left:
        shown.add_row(each.said, "can be mended" if each.actions else "NOT MENDED")
    return shown
