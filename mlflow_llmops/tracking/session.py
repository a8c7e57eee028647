"""What a run offers the methods inside it: its metrics, what earlier runs kept, and a folder that a kill leaves."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.methods._session import Session, session
from mlflow_llmops.tracking.loaded import load_model
from mlflow_llmops.tracking.run import log_params

WORK = "LLMOPS_WORK"
"""The variable that moves the folders of running jobs elsewhere, to a disk with more room."""
CHECKPOINT_SECONDS = "LLMOPS_CHECKPOINT_SECONDS"
"""The variable that says how much work a kill may cost."""


@contextmanager
def run_session(run_id: str) -> Iterator[Session]:
    """Offer the active run `run_id` to the methods applied inside. Its folder goes when all went well."""
    work = work_folder(run_id)
    seconds = float(os.environ.get(CHECKPOINT_SECONDS, Session.checkpoint_seconds))
    with tempfile.TemporaryDirectory(prefix="llmops-fetched-") as fetched:

        def fetch(reference: str) -> Path:
            found = load_model(reference, task=None).model
            if found.net is None:
                raise ConfigError(f"{reference} is a graph of kind {found.kind}, which cannot be trained")
            found.save(Path(fetched))
            return Path(fetched)

        offered = Session(_record, log_params, recall, _keep, fetch, work, seconds)
        with session(offered):
            yield offered
    shutil.rmtree(work, ignore_errors=True)


def work_folder(run_id: str) -> Path:
    """Where a run keeps its checkpoints while it works: on this machine, out of the artifact store."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(WORK) or cache / "mlflow-llmops" / "runs") / run_id


def recall(key: str) -> Path | None:
    """The folder that any run of the tracking store kept under `key`, the newest that can be read; None: none did."""
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`{names.KEPT_PREFIX}{key}` = 'yes'"
    for run in client.search_runs(experiments, wanted, order_by=["attributes.start_time DESC"], max_results=5):
        try:
            return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{names.KEPT}/{key}"))
        except (MlflowException, OSError):  # somebody cleaned its artifacts
            continue
    return None


def _keep(key: str, folder: Path) -> None:
    mlflow.log_artifacts(str(folder), f"{names.KEPT}/{key}")
    mlflow.set_tag(names.KEPT_PREFIX + key, "yes")


def _record(metrics: Mapping[str, float], step: int) -> None:
    mlflow.log_metrics(dict(metrics), step=step)
