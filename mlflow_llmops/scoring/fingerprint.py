"""Everything that changes a job's results: what a checkpoint must agree with to be gone on with."""

import json
from dataclasses import asdict, dataclass

from mlflow_llmops import __version__
from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.model import ResolvedModel
from mlflow_llmops.scoring.options import Options


@dataclass(frozen=True)
class Fingerprint:
    """Readable parts, so that a mismatch can say which."""

    model: str
    params: str
    input_col: str
    id_col: str
    id_type: str
    code: str

    def write(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def check(self, checkpoint: str, stored: str) -> None:
        """Raises DataError, with the parts that differ, where a checkpoint was made by another job."""
        try:
            before = dict(json.loads(stored))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"checkpoint={checkpoint}: what it says of its job cannot be read; remove it, or name another folder"
            ) from error
        differ = [
            f"{name} (it has {before.get(name, 'none')}, this job {mine})"
            for name, mine in asdict(self).items()
            if before.get(name) != mine
        ]
        if differ:
            raise DataError(
                f"checkpoint={checkpoint} is of a job that differs in {'; '.join(differ)}: its rows would not be those "
                "of this one; run that job again as it was, or name another folder"
            )


def fingerprint_of(model: ResolvedModel, options: Options, id_type: str) -> Fingerprint:
    """Of a job. What only says how the work is done (limits, tasks, what happens to failed rows) is not in it."""
    code = ", ".join((f"mlflow-llmops {__version__}", *model.runtimes))
    params = json.dumps(dict(options.params), sort_keys=True, default=str)
    return Fingerprint(model.digest, params, options.input_col, str(options.id_col), id_type, code)
