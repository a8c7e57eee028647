"""The only place that starts a run."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset import Dataset
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking.fluent import ActiveRun
from sqlalchemy.exc import SQLAlchemyError

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError, LLMOpsError, as_storage_error
from mlflow_llmops.hardware import hardware_tags
from mlflow_llmops.measure.measurement import Measurements, flat

EXPERIMENT = "llmops-quickstart"


@contextmanager
def start_run(
    name: str, tags: Mapping[str, str], params: Mapping[str, Any], resume: str | None = None
) -> Iterator[Run]:
    """A run, nested where one is active; inside `mlflow run` the first one is the project's own.

    `resume` goes on in a run that was interrupted; the project's own run then points at it. An error that the user can
    mend is kept as a tag; the run ends FAILED with any error.
    """
    inside_project = "MLFLOW_RUN_ID" in os.environ
    nested = mlflow.active_run() is not None
    if inside_project and not nested:
        _check_project_run(os.environ["MLFLOW_RUN_ID"])
    with _begin(name, nested, inside_project, resume) as run:
        mlflow.set_tags({**hardware_tags(), **_commit(), **tags})
        if inside_project and not nested:
            mlflow.set_tag("mlflow.runName", name)
        log_params(params)
        try:
            yield run
        except Exception as error:
            mine = error if isinstance(error, LLMOpsError) else as_storage_error(error)
            if mine is None:
                raise
            with suppress(MlflowException):  # on a full disk the tag has no room either
                mlflow.set_tag(names.ERROR, str(mine)[:5000])
            raise mine from error


def _begin(name: str, nested: bool, inside_project: bool, resume: str | None) -> ActiveRun:
    """A new run, or the project's own. Raises ConfigError for a tracking store that cannot be used."""
    with usable_store():
        if not inside_project and not nested and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        if resume is None:
            return mlflow.start_run(run_name=name, nested=nested)
        if inside_project and os.environ["MLFLOW_RUN_ID"] != resume:
            mlflow.MlflowClient().set_tag(os.environ["MLFLOW_RUN_ID"], names.CONTINUED_IN, resume)
        _check_interrupted(resume, name)
        return mlflow.start_run(run_id=resume, nested=nested)


@contextmanager
def usable_store() -> Iterator[None]:
    """Raises ConfigError for a tracking store that cannot be used inside."""
    try:
        yield
    # a scheme or answer, a folder, a database driver, a database: each fails in its own way
    except (MlflowException, OSError, ImportError, SQLAlchemyError) as error:
        uri, first = (re.sub("//[^/@ ]*@", "//***@", text) for text in (mlflow.get_tracking_uri(), _first(error)))
        raise as_storage_error(error) or ConfigError(
            f"MLFLOW_TRACKING_URI={uri} cannot be used: {first[:300]}; check it and MLFLOW_EXPERIMENT_NAME. A store is "
            "a server or a database, such as sqlite:////home/me/mlflow.db"
        ) from error


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters under names with a dot, which no parameter of `mlflow run` has: those are logged shell-quoted
    before we start, and another spelling under the same name would end the run."""
    given = {name: value for name, value in params.items() if value is not None}
    run = mlflow.active_run()
    before = mlflow.get_run(run.info.run_id).data.params if run else {}
    for name, value in given.items():
        if before.get(name, str(value)) != str(value):
            raise ConfigError(f"{name}={value}: the run that is resumed has {before[name]}; give it the same options")
    mlflow.log_params(given)


def log_measurements(
    measured: Measurements, prefix: str = "", model_id: str | None = None, dataset: Dataset | None = None
) -> None:
    """Log values and the ends of their intervals to the run, and to the logged model where one is named, linked to
    the data set that they are of."""
    metrics = {prefix + name: value for name, value in flat(measured).items()}
    mlflow.log_metrics(metrics, model_id=model_id, dataset=dataset)


def _check_interrupted(run_id: str, name: str) -> None:
    """Only a run of ours that did not come to its end can go on."""
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise ConfigError(f"resume={run_id}: there is no such run in {mlflow.get_tracking_uri()}") from error
    if run.info.run_name != name:
        raise ConfigError(
            f"resume={run_id} is a run of {run.info.run_name}, not of {name}; use the same verb and method"
        )
    if run.info.status == "FINISHED":
        raise ConfigError(f"resume={run_id}: that run has finished; there is nothing left to do")


def _check_project_run(run_id: str) -> None:
    """`mlflow run` made this run, in a store that a relative path finds from the folder it was called in only."""
    try:
        mlflow.get_run(run_id)
    except MlflowException as error:
        raise ConfigError(
            f"the run that `mlflow run` made is not in {mlflow.get_tracking_uri()}, seen from {Path.cwd()}; "
            "set MLFLOW_TRACKING_URI to an absolute path (sqlite:////home/me/mlflow.db) or a server"
        ) from error


def _commit() -> dict[str, str]:
    """The git commit of the folder we run in, where it is one of ours."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=Path.cwd())
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {names.GIT_COMMIT: answer.stdout.strip()} if answer.returncode == 0 else {}
