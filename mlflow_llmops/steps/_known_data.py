"""What the runs behind a version know of its data: the options that their verb was given."""

from collections.abc import Iterator

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_llmops import names
from mlflow_llmops.methods.option import AUTO

OPTIONS = ("data", "text_column", "label_column", "eval_data", "overlap")


def known_data(version: ModelVersion) -> dict[str, str | None] | None:
    """The options of `load_data` that the version was made with, or last compared with; None where no run says."""
    for run in _runs(version):
        verb = run.data.tags.get(names.VERB, "")
        given = {name: run.data.params.get(f"{verb}.{name}") for name in OPTIONS}
        if given["data"]:
            return {name: None if value == AUTO else value for name, value in given.items() if value is not None}
    return None


def _runs(version: ModelVersion) -> Iterator[Run]:
    """The run that made it and those around that one, then its last comparison."""
    waiting = [version.run_id, version.tags.get(names.EVIDENCE_RUN)]
    while waiting:
        run_id = waiting.pop(0)
        if not run_id:
            continue
        try:
            run = mlflow.get_run(run_id)
        except MlflowException:  # deleted for good
            continue
        yield run
        waiting.insert(0, run.data.tags.get("mlflow.parentRunId"))
